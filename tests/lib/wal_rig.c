/* The rig. A misuse by a test is fatal. */
#include "wal_rig.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "wal_prepare.h"

static struct rig_answer *answer_of(struct wal_rig *rig, struct link_token token)
{
    assert(token.number > 0 && token.number < RIG_ANSWERS_MAX);
    rig->answers[token.number].times++;
    return &rig->answers[token.number];
}

static void on_write(void *arg, struct wal_frame *frame)
{
    struct wal_rig *rig = arg;
    *rig->last = frame;
    rig->last = &frame->next;
}

static void on_reply(void *arg, struct link_token token, const struct msg_append_reply *reply)
{
    answer_of(arg, token)->reply = *reply;
}

static void on_refuse(void *arg, struct link_token token, const struct msg_error *error)
{
    struct rig_answer *answer = answer_of(arg, token);
    struct wal_rig *rig = arg;
    answer->code = (enum sh_error)error->code;
    answer->expected = error->expected;
    answer->retry_ms = error->retry_ms;
    answer->look_again = error->look_again;
    snprintf(rig->refusal, sizeof rig->refusal, "%.*s", (int)error->text.len, (const char *)error->text.data);
}

static void on_watermark(void *arg, struct link_token token, const struct msg_watermark_reply *reply)
{
    answer_of(arg, token)->watermark = *reply;
}

static void on_accepted(void *arg)
{
    struct wal_rig *rig = arg;
    rig->losses++;
}

static void on_loss_refused(void *arg, enum sh_error error, const char *text)
{
    struct wal_rig *rig = arg;
    (void)text;
    rig->loss_error = error;
}

static void on_settled(void *arg, struct link_token token, uint64_t durable_lsn)
{
    answer_of(arg, token)->settled_lsn = durable_lsn;
}

static void on_unlend(void *arg, struct link_token token)
{
    struct wal_rig *rig = arg;
    buf_free(&rig->bodies[token.number]);
}

static void on_status(void *arg, struct link_token token, const struct msg_producer_status_reply *reply)
{
    answer_of(arg, token)->status = *reply;
}

enum service_exit rig_open(struct wal_rig *rig, const struct vfs *fs, const char *data, uint64_t segment_size)
{
    struct wal_state state;
    memset(rig, 0, sizeof *rig);
    rig->fs = fs;
    rig->last = &rig->first;
    rig->next_fd = -1;
    rig->now_ns = clock_real_ns();
    rig->session = 1;
    snprintf(rig->data, sizeof rig->data, "%s", data);
    enum service_exit code = wal_dir_open(&rig->dir, fs, data, "n1");
    if (code != EXIT_DONE)
        return code;
    wal_state_init(&state);
    code = wal_dir_open_log(&rig->dir, &rig->log, segment_size, &state);
    if (code != EXIT_DONE) {
        wal_state_free(&state);
        wal_dir_close(&rig->dir);
        return code;
    }
    struct wal_core_options options = {
        .log = rig->dir.identity.log,
        .segment_size = segment_size,
        .queue_bytes = 1 << 20,
        .offset = rig->log.offset,
        .limit = rig->log.limit,
        .state = state,
        .durable = rig->log.durable,
        .actions = {on_write, on_reply, on_refuse, on_watermark, on_accepted, on_loss_refused, on_settled,
                    on_unlend, on_status, NULL, rig},
    };
    rig->core = wal_core_open(&options);
    wal_permit_start(&rig->dir.permit, rig->core);
    rig->opened = true;
    return EXIT_DONE;
}

void rig_kill(struct wal_rig *rig)
{
    while (rig->first != NULL) {
        struct wal_frame *next = rig->first->next;
        wal_frame_free(rig->first);
        rig->first = next;
    }
    for (size_t i = 0; i < RIG_ANSWERS_MAX; i++)
        buf_free(&rig->bodies[i]);
    if (rig->next_fd >= 0)
        rig->fs->close(rig->fs, rig->next_fd);
    wal_core_close(rig->core);
    wal_log_close(&rig->log);
    wal_dir_close(&rig->dir);
    rig->opened = false;
}

void rig_close(struct wal_rig *rig)
{
    bool good = rig_commit(rig) && wal_log_write_mark(&rig->log) == 0;
    assert(good);
    rig_kill(rig);
}

struct id16 rig_producer(uint64_t number)
{
    struct id16 id = {0};
    memcpy(id.bytes, &number, sizeof number);
    return id;
}

uint64_t rig_append_body(struct wal_rig *rig, uint64_t producer, uint32_t epoch, uint64_t sequence,
                         struct slice body)
{
    uint64_t number = ++rig->requests;
    assert(number < RIG_ANSWERS_MAX);
    buf_append(&rig->bodies[number], body.data, body.len);
    struct msg_append append = {
        .producer = rig_producer(producer),
        .epoch = epoch,
        .sequence = sequence,
        .ack = rig->ack,
        .timeout_ms = rig->timeout_ms,
        .hlc = rig->hlc,
        .conditions = rig->conditions,
        .entries = buf_slice(&rig->bodies[number]),
    };
    wal_core_append(rig->core, (struct link_token){rig->session, number}, &append, rig->now_ns, rig->now_ns);
    return number;
}

uint64_t rig_append_many(struct wal_rig *rig, uint64_t producer, uint64_t sequence, struct slice payload,
                         uint32_t count)
{
    struct entry entry = {.kind = ENTRY_EVENT, .stream = slice_str(""), .value = payload};
    struct buf body = {0};
    msgpack_packer pk;
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, count);
    for (uint32_t i = 0; i < count; i++)
        entry_pack(&pk, &entry);
    uint64_t number = rig_append_body(rig, producer, 1, sequence, buf_slice(&body));
    buf_free(&body);
    return number;
}

uint64_t rig_append(struct wal_rig *rig, uint64_t producer, uint32_t epoch, uint64_t sequence,
                    struct slice payload)
{
    struct entry entry = {.kind = ENTRY_EVENT, .stream = slice_str(""), .value = payload};
    struct buf body = {0};
    msgpack_packer pk;
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, 1);
    entry_pack(&pk, &entry);
    uint64_t number = rig_append_body(rig, producer, epoch, sequence, buf_slice(&body));
    buf_free(&body);
    return number;
}

uint64_t rig_watermark(struct wal_rig *rig, uint64_t newer_than, uint64_t wait_ms, int64_t now_ns)
{
    uint64_t number = ++rig->requests;
    struct msg_watermark request = {.newer_than = newer_than, .wait_ms = wait_ms};
    wal_core_watermark(rig->core, (struct link_token){1, number}, &request, now_ns);
    return number;
}

bool rig_prepare(struct wal_rig *rig)
{
    rig->prepares = true;
    if (rig->next_fd >= 0)
        return true;
    int fd = wal_prepare_make(rig->fs, rig->log.dir, rig->log.segment_size, 0);
    if (fd >= 0) {
        rig->next_fd = fd;
        wal_core_next_segment(rig->core, WAL_NEXT_READY, rig->now_ns);
        return true;
    }
    if (fd == -ENOSPC)
        wal_core_next_segment(rig->core, WAL_NEXT_DISK_FULL, rig->now_ns);
    return false;
}

static void free_frames(struct wal_frame *frame)
{
    while (frame != NULL) {
        struct wal_frame *next = frame->next;
        wal_frame_free(frame);
        frame = next;
    }
}

/* Takes the frames up to the next one that opens a segment, or that one alone. */
static struct wal_frame *take_part(struct wal_rig *rig)
{
    struct wal_frame *first = rig->first, **at = &first->next;
    if (!first->opens_segment)
        while (*at != NULL && !(*at)->opens_segment)
            at = &(*at)->next;
    rig->first = *at;
    *at = NULL;
    if (rig->first == NULL)
        rig->last = &rig->first;
    return first;
}

bool rig_write(struct wal_rig *rig)
{
    if (rig->first == NULL)
        return true;
    struct wal_frame *part = take_part(rig);
    assert(rig->first == NULL && !part->opens_segment);
    int result = wal_log_write(&rig->log, part);
    free_frames(part);
    return result == 0;
}

static bool roll(struct wal_rig *rig, struct wal_frame *checkpoint)
{
    int old, fd = rig->next_fd;
    uint64_t old_end;
    assert(fd >= 0);
    rig->next_fd = -1;
    int result = wal_log_roll(&rig->log, fd, checkpoint, &old, &old_end);
    if (result == 0)
        result = wal_log_write_mark(&rig->log);
    if (result == 0)
        result = wal_prepare_seal(rig->fs, old, old_end);
    rig->fs->close(rig->fs, old);
    return result == 0;
}

bool rig_commit(struct wal_rig *rig)
{
    while (rig->first != NULL) {
        struct wal_frame *part = take_part(rig);
        bool good = part->opens_segment ? roll(rig, part) : wal_log_write(&rig->log, part) == 0;
        if (good && !part->opens_segment)
            good = wal_log_sync(&rig->log) == 0;
        free_frames(part);
        if (!good)
            return false;
        wal_core_durable(rig->core, &rig->log.durable);
        if (rig->prepares && rig->next_fd < 0 && !rig_prepare(rig))
            return false;
    }
    return true;
}

enum sh_error rig_read_all(const struct vfs *fs, const char *data, uint64_t durable_end,
                           void (*fn)(void *arg, uint64_t lsn, const struct entry *entry), void *arg)
{
    struct node_identity identity;
    char dir[PATH_MAX + 64], uuid[ID_TEXT];
    enum sh_error error = node_identity_read(fs, data, &identity);
    if (error != SH_OK)
        return error;
    id16_format(identity.log, uuid);
    snprintf(dir, sizeof dir, "%s/log/%s", data, uuid);
    struct log_reader *reader = log_reader_open(fs, dir, identity.log);
    struct buf out = {0};
    struct log_read read = {
        .from = 1, .durable_end = durable_end, .max_bytes = 1 << 20, .max_entries = 100000};
    do {
        out.len = 0;
        error = log_reader_read(reader, &read, &out);
        for (size_t at = 0, size; at < out.len; at += size) {
            struct frame_header h;
            struct entry entry;
            uint32_t count;
            error =
                frame_verify(slice_of(out.data + at, out.len - at), read.salt, FRAME_BYTES_MAX, &h, &size);
            assert(error == SH_OK);
            struct mp m = mp_of(slice_of(out.data + at + FRAME_HEADER_BYTES, h.body_bytes));
            bool good = entries_open(&m, &count);
            for (uint32_t i = 0; good && i < count; i++) {
                good = entry_next(&m, &entry) == SH_OK;
                fn(arg, h.base_lsn + i, &entry);
            }
            assert(good && count == h.count);
        }
        read.from = read.next;
    } while (error == SH_OK && out.len > 0);
    buf_free(&out);
    log_reader_close(reader);
    return error;
}

void rig_make_dir(char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "/tmp/shXXXXXX");
    if (mkdtemp(path) == NULL)
        abort();
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

void rig_remove_dir(const char *path)
{
    assert(strncmp(path, "/tmp/sh", 7) == 0);
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
