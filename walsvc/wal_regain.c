/* Appending again. A folder that cannot be read stays as it is, which is logged; nothing here is fatal.
 *
 *   a folder --begin--> a batch of frames --all durable--> progress --> the next batch ... --> done
 */
#include "wal_regain.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "checked_text.h"
#include "digest.h"
#include "failpoint.h"
#include "log.h"
#include "telemetry_push.h"
#include "segment_scan.h"

enum { BATCH_FRAMES = 256, BATCH_BYTES = 1 << 20, LOOK_FRAMES = 4096 };
_Static_assert((int)BATCH_FRAMES < (int)WAL_PRODUCERS_MAX, "no producer of a batch is forgotten within it");
static const char progress_name[] = "progress", first_line[] = "shanghai regain 1\n";

/* Of a folder; the numbers of its data frames. */
struct counts {
    uint64_t frames;             /* that were looked at */
    uint64_t made;               /* of those, with the producer that was made */
    uint64_t appended, entries;  /* now */
    uint64_t there, bad_bytes;   /* that the log has; that are no frames */
    uint64_t too_large, systems; /* frames that are left there; system frames, which are not appended */
};

struct wal_regain {
    struct wal_regain_options options;
    struct wal_forked_folder *folders;
    size_t count, at;
    /* The folder that is in work; bases NULL: none is. */
    char path[PATH_MAX];
    uint64_t *bases;
    size_t segments, segment;
    int fd; /* -1: the next segment is to be opened */
    struct segment_scan scan;
    struct log_chain chain; /* what the next frame should continue; its position is not the log's */
    struct counts counts;
    uint64_t passed;  /* frames that an earlier start has dealt with */
    struct id16 made; /* the producer for those that have none; zero: no frame was seen yet */
    /* The batch */
    uint64_t frames, bytes, end; /* end: position that is to be durable */
    bool is_over;                /* all of the folder is in it */
};

/* ---------------------------------------------------------------- progress */

static bool take_number(struct checked_text *text, const char *name, uint64_t *out)
{
    char *value, *end;
    if (!checked_text_take(text, name, &value) || value[0] < '0' || value[0] > '9')
        return false;
    errno = 0;
    *out = strtoull(value, &end, 10);
    return errno == 0 && *end == 0;
}

static void read_progress(struct wal_regain *r)
{
    struct checked_text text;
    enum sh_error error = checked_text_read(&text, r->options.fs, r->path, progress_name, first_line);
    bool good = error == SH_OK && take_number(&text, "frames", &r->passed) &&
                take_number(&text, "made", &r->counts.made) && checked_text_at_end(&text);
    if (good)
        return;
    r->passed = r->counts.made = 0;
    if (error != SH_NOT_FOUND)
        log_warn("the progress of what is appended again cannot be read; what the log remembers to have is "
                 "passed over",
                 log_text("dir", r->path));
}

/* On a full disk it is left out: what the table of producers remembers is passed over all the same. */
static void write_progress(struct wal_regain *r)
{
    struct buf lines = {0};
    buf_printf(&lines, "%sframes %" PRIu64 "\nmade %" PRIu64 "\n", first_line, r->counts.frames,
               r->counts.made);
    int result = checked_text_write(&lines, r->options.fs, r->path, progress_name);
    buf_free(&lines);
    failpoint_hit("regain_progress");
    if (result < 0)
        log_warn("the progress of what is appended again cannot be written", log_text("dir", r->path),
                 log_text("error", strerror(-result)));
}

/* ---------------------------------------------------------------- a folder */

static void close_file(struct wal_regain *r)
{
    if (r->fd < 0)
        return;
    segment_scan_free(&r->scan);
    r->options.fs->close(r->options.fs, r->fd);
    r->fd = -1;
}

/* Goes to the next folder. */
static void leave_folder(struct wal_regain *r)
{
    close_file(r);
    free(r->bases);
    r->bases = NULL;
    r->at++;
}

/* It stays as it is, for the next start. */
static void give_up_folder(struct wal_regain *r, const char *what, int result)
{
    log_error("frames that were cut off this log cannot be appended again now; they stay where they are",
              log_text("dir", r->path), log_text("what", what), log_text("error", strerror(-result)));
    leave_folder(r);
}

static bool begin_folder(struct wal_regain *r)
{
    char root[PATH_MAX];
    vfs_path(root, r->options.data, "forked");
    vfs_path(r->path, root, r->folders[r->at].name);
    r->counts = (struct counts){0};
    r->segment = r->frames = r->bytes = 0;
    r->is_over = false;
    r->made = (struct id16){0};
    int result = segment_list(r->options.fs, r->path, &r->bases, &r->segments);
    if (result < 0) {
        give_up_folder(r, "it cannot be listed", result);
        return false;
    }
    read_progress(r);
    log_info("frames that were cut off this log are appended again", log_text("dir", r->path),
             log_uint("frames_done", r->passed));
    return true;
}

static bool open_segment(struct wal_regain *r)
{
    const struct vfs *fs = r->options.fs;
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    uint64_t base = r->bases[r->segment++];
    int64_t size = 0;
    segment_name(base, name);
    vfs_path(path, r->path, name);
    r->fd = fs->open(fs, path, O_RDONLY, 0);
    int result = r->fd < 0 ? r->fd : fs->size(fs, r->fd, &size);
    if (result < 0) {
        give_up_folder(r, "a segment cannot be opened", result);
        return false;
    }
    segment_scan_open(&r->scan, fs, r->fd, segment_salt(r->options.log, base), (uint64_t)size);
    uint64_t lsn = r->folders[r->at].lsn;
    r->chain = (struct log_chain){.next_lsn = base > lsn ? base : lsn};
    return true;
}

/* What was appended is durable, or there was nothing. */
static void end_folder(struct wal_regain *r)
{
    const struct wal_forked_folder *folder = &r->folders[r->at];
    const struct counts *n = &r->counts;
    int result = wal_forked_done(r->options.fs, r->options.data, folder->name);
    if (result < 0) {
        give_up_folder(r, "it cannot get its name", result);
        return;
    }
    event_warn("log_regained", "what was cut off this log was appended again, at other positions",
               log_text("dir", r->path), log_uint("frames", n->appended), log_uint("entries", n->entries),
               log_uint("there_already", n->there), log_uint("system_frames_left", n->systems));
    if (n->bad_bytes > 0 || n->too_large > 0)
        event_error("log_regained_in_part",
                    "a part of what was cut off this log was not appended again, and is kept only there",
                    log_text("dir", r->path), log_uint("damaged_bytes", n->bad_bytes),
                    log_uint("too_large_frames", n->too_large));
    leave_folder(r);
}

/* ---------------------------------------------------------------- frames */

/* Passes over bytes that are no frame. False: it cannot be read. */
static bool pass_damage(struct wal_regain *r)
{
    struct segment_search search;
    struct frame_header h;
    uint64_t from = r->scan.offset, extent;
    if (!segment_scan_extent(&r->scan, &extent))
        return false;
    struct log_chain chain = {r->chain.next_lsn, r->chain.checksum, UINT64_MAX / 2 + from};
    segment_search_open(&search, &r->scan, &chain);
    enum scan_result result;
    do
        result = segment_search_next(&search, extent, &h);
    while (result == SCAN_FRAME && r->scan.offset <= from);
    if (result == SCAN_FAILED)
        return false;
    if (result == SCAN_END)
        r->scan.offset = r->scan.end;
    log_error("bytes of what was cut off this log are damaged, and passed over", log_text("dir", r->path),
              log_uint("segment", r->bases[r->segment - 1]), log_uint("offset", from),
              log_uint("bytes", r->scan.offset - from));
    r->counts.bad_bytes += r->scan.offset - from;
    return true;
}

/* The next valid frame of the folder. SCAN_END: there is none. SCAN_BAD: the folder was left. */
static enum scan_result next_frame(struct wal_regain *r, struct frame_header *h, struct slice *bytes)
{
    for (;;) {
        if (r->fd < 0 && r->segment == r->segments)
            return SCAN_END;
        if (r->fd < 0 && !open_segment(r))
            return SCAN_BAD;
        enum scan_result result = segment_scan_next(&r->scan, h, bytes);
        if (result == SCAN_FRAME)
            return result;
        if (result == SCAN_END) {
            close_file(r);
        } else if (result == SCAN_FAILED || !pass_damage(r)) {
            give_up_folder(r, "a segment cannot be read", r->scan.error);
            return SCAN_BAD;
        }
    }
}

/* The same whenever this folder, or another one with the same first frame, is appended again. */
static void make_producer(struct wal_regain *r, uint32_t checksum)
{
    struct digest_state *state = digest_open();
    uint8_t place[2 * sizeof(uint64_t)];
    put_u64(place, r->folders[r->at].lsn);
    put_u64(place + sizeof(uint64_t), checksum);
    digest_add(state, slice_of(r->options.log.bytes, sizeof r->options.log.bytes));
    digest_add(state, slice_of(place, sizeof place));
    struct digest128 digest = digest_close(state);
    memcpy(r->made.bytes, digest.bytes, sizeof r->made.bytes);
}

/* Under which producer a frame comes back; *there: the log has it. */
static void choose_producer(struct wal_regain *r, struct frame_header *h, bool *there, bool *is_made)
{
    const struct wal_core *core = r->options.core;
    enum wal_back back = WAL_BACK_OTHER;
    if (!id16_is_zero(h->producer))
        back = wal_core_judge_back(core, h->producer, h->epoch, h->sequence);
    *is_made = back == WAL_BACK_OTHER;
    *there = back == WAL_BACK_THERE;
    if (!*is_made)
        return;
    h->producer = r->made;
    h->epoch = 1;
    h->sequence = r->counts.made + 1;
    *there = wal_core_judge_back(core, h->producer, h->epoch, h->sequence) == WAL_BACK_THERE;
}

/* A data frame that no earlier start has dealt with. False: not now. */
static bool bring_back(struct wal_regain *r, struct frame_header *h, struct slice body, int64_t now_real_ns)
{
    struct counts *n = &r->counts;
    bool there, is_made;
    if (body.len > frame_body_most(r->options.segment_size)) {
        n->too_large++;
        return true;
    }
    choose_producer(r, h, &there, &is_made);
    if (!there && !wal_core_append_back(r->options.core, h, body, now_real_ns))
        return false;
    n->made += is_made;
    n->there += there;
    n->appended += !there;
    n->entries += there ? 0 : h->count;
    r->bytes += there ? 0 : body.len;
    r->end = wal_core_stats(r->options.core).position;
    return true;
}

/* A valid frame of the folder. False: not now. */
static bool take_frame(struct wal_regain *r, struct frame_header *h, struct slice body, int64_t now_real_ns)
{
    const struct log_chain behind = {h->base_lsn + h->count, h->checksum, 0};
    if (id16_is_zero(r->made))
        make_producer(r, h->checksum);
    if (h->kind != FRAME_DATA) {
        r->counts.systems += h->kind != FRAME_CHECKPOINT && h->kind != FRAME_CLOCK;
    } else if (r->counts.frames < r->passed) {
        r->counts.frames++;
    } else if (bring_back(r, h, body, now_real_ns)) {
        r->counts.frames++;
        r->frames++;
    } else {
        return false;
    }
    r->chain = behind;
    return true;
}

static bool is_full(const struct wal_regain *r)
{
    return r->is_over || r->frames == BATCH_FRAMES || r->bytes >= BATCH_BYTES;
}

/* WAL_REGAIN_DONE: the batch is full. */
static enum wal_regain_state fill_batch(struct wal_regain *r, int64_t now_real_ns)
{
    struct frame_header h;
    struct slice bytes;
    for (unsigned looked = 0; !is_full(r); looked++) {
        if (looked == LOOK_FRAMES)
            return WAL_REGAIN_AGAIN;
        enum scan_result result = next_frame(r, &h, &bytes);
        if (result == SCAN_BAD)
            return WAL_REGAIN_AGAIN; /* the folder was left */
        r->is_over = result == SCAN_END;
        if (r->is_over)
            continue;
        if (!take_frame(r, &h, slice_of(bytes.data + FRAME_HEADER_BYTES, h.body_bytes), now_real_ns)) {
            r->scan.offset -= bytes.len; /* the same frame again */
            return WAL_REGAIN_WAITS;
        }
    }
    return WAL_REGAIN_DONE;
}

enum wal_regain_state wal_regain_step(struct wal_regain *r, int64_t now_real_ns)
{
    if (r->at == r->count)
        return WAL_REGAIN_DONE;
    if (r->bases == NULL && !begin_folder(r))
        return WAL_REGAIN_AGAIN;
    enum wal_regain_state state = fill_batch(r, now_real_ns);
    if (state != WAL_REGAIN_DONE)
        return state;
    if (r->frames > 0 && wal_core_stats(r->options.core).durable_end < r->end)
        return WAL_REGAIN_WAITS;
    if (r->is_over) {
        end_folder(r);
        return WAL_REGAIN_AGAIN;
    }
    write_progress(r);
    r->frames = r->bytes = 0;
    return WAL_REGAIN_AGAIN;
}

/* ---------------------------------------------------------------- life */

struct wal_regain *wal_regain_open(const struct wal_regain_options *o)
{
    struct wal_forked_folder *folders;
    size_t count;
    int result = wal_forked_list(o->fs, o->data, o->log, &folders, &count);
    if (result < 0)
        log_error("cannot look for what was cut off this log: nothing of it is appended again",
                  log_text("dir", o->data), log_text("error", strerror(-result)));
    if (result < 0 || count == 0) {
        free(folders);
        return NULL;
    }
    struct wal_regain *r = xcalloc(1, sizeof *r);
    *r = (struct wal_regain){.options = *o, .folders = folders, .count = count, .fd = -1};
    return r;
}

void wal_regain_close(struct wal_regain *r)
{
    if (r == NULL)
        return;
    close_file(r);
    free(r->bases);
    free(r->folders);
    free(r);
}
