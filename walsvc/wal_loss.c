/* Finding out what is lost. Nothing here is fatal. */
#include "wal_loss.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "log_verify.h"

void wal_loss_search_open(struct wal_loss_search *s, uint64_t first, uint64_t last)
{
    *s = (struct wal_loss_search){.first = first, .last = last};
}

bool wal_loss_feed(struct wal_loss_search *s, const struct frame_header *h, uint64_t position)
{
    uint64_t next_lsn = h->base_lsn + h->count;
    struct log_chain at = {.next_lsn = h->base_lsn, .checksum = h->previous_checksum, .position = position};
    struct log_chain end = {
        .next_lsn = next_lsn,
        .checksum = h->checksum,
        .position = position + FRAME_HEADER_BYTES + h->body_bytes,
    };
    if (next_lsn <= s->first) {
        s->has_before = true;
        s->before = s->run = end;
        return true;
    }
    /* Segment headers lie between frames, so positions don't tell whether one follows the other. */
    bool follows =
        (s->has_before || s->has_behind) && s->run.next_lsn == at.next_lsn && s->run.checksum == at.checksum;
    if (!follows) {
        s->has_behind = true;
        s->behind = at;
    }
    s->run = end;
    if (h->count == 0)
        return h->base_lsn <= s->last + 1;
    if (h->base_lsn <= s->last) {
        s->is_readable = true;
        s->readable_lsn = h->base_lsn > s->first ? h->base_lsn : s->first;
    }
    return false;
}

static enum sh_error refuse_lsn(struct wal_refusal *refusal, const char *what, uint64_t lsn)
{
    char text[sizeof refusal->text];
    snprintf(text, sizeof text, "LSN %" PRIu64 " %s", lsn, what);
    return wal_refuse(refusal, SH_CONFLICT, 0, text);
}

enum sh_error wal_loss_judge(const struct wal_loss_search *s, uint64_t first_of_log, struct log_loss *out,
                             struct wal_refusal *refusal)
{
    if (s->is_readable)
        return refuse_lsn(refusal, "can be read: nothing is given up", s->readable_lsn);
    if (!s->has_behind)
        return wal_refuse(refusal, SH_CONFLICT, 0, "nothing that can be read stands behind it");
    if (s->first > first_of_log && (!s->has_before || s->before.next_lsn < s->first))
        return refuse_lsn(refusal, "is missing too: all that is missing in one place is given up, or nothing",
                          s->first - 1);
    if (s->behind.next_lsn > s->last + 1)
        return refuse_lsn(refusal, "is missing too: all that is missing in one place is given up, or nothing",
                          s->behind.next_lsn - 1);
    *out = (struct log_loss){
        .first_lsn = s->first,
        .last_lsn = s->last,
        .begin = s->has_before ? s->before.position : 0,
        .end = s->behind.position,
        .checksum_before = s->has_before ? s->before.checksum : 0,
        .checksum_behind = s->behind.checksum,
    };
    return SH_OK;
}

/* What is fed from the files, and where the range begins. */
struct feeding {
    struct wal_loss_search search;
    struct wal_loss_place place;
};

static bool on_frame(void *arg, const struct log_frame *f)
{
    struct feeding *feeding = arg;
    if (!f->durable)
        return false;
    bool more = wal_loss_feed(&feeding->search, f->header, f->segment->position + f->offset);
    uint64_t end = f->offset + FRAME_HEADER_BYTES + f->body.len;
    if (feeding->search.has_before && feeding->search.before.position == f->segment->position + end)
        feeding->place = (struct wal_loss_place){f->segment->base_lsn, end};
    return more;
}

static enum sh_error first_segment(const struct vfs *fs, const char *log_dir, uint64_t *first)
{
    uint64_t *bases;
    size_t count;
    int result = segment_list(fs, log_dir, &bases, &count);
    if (result == 0 && count > 0)
        *first = bases[0];
    else
        log_error("cannot list the log's segments", log_text("dir", log_dir),
                  log_text("error", strerror(-result)));
    free(bases);
    return result == 0 && count > 0 ? SH_OK : SH_INTERNAL;
}

enum sh_error wal_loss_find(const struct vfs *fs, const char *data_dir, const char *log_dir, struct id16 log,
                            uint64_t first, uint64_t last, uint64_t durable_lsn, struct log_loss *out,
                            struct wal_loss_place *place, struct wal_refusal *refusal)
{
    struct feeding feeding = {0};
    struct log_verify_report report;
    uint64_t first_of_log = 0;
    if (first == 0 || last < first)
        return wal_refuse(refusal, SH_BAD_REQUEST, 0,
                          "a range has a first LSN from 1, and a last one from there");
    if (last > durable_lsn)
        return wal_refuse(refusal, SH_NOT_FOUND, 0, "the log ends before that");
    if (first_segment(fs, log_dir, &first_of_log) != SH_OK)
        return wal_refuse(refusal, SH_INTERNAL, 0, "cannot list the log's segments");
    if (first < first_of_log)
        return wal_refuse(refusal, SH_TRIMMED, first_of_log, "the log begins behind that");
    wal_loss_search_open(&feeding.search, first, last);
    feeding.place.base_lsn = first_of_log;
    struct log_verify_options options = {
        .log = log, .from_lsn = first - 1, .on_frame = on_frame, .arg = &feeding};
    enum sh_error error = log_verify(fs, data_dir, &options, &report);
    if (error != SH_OK && error != SH_CORRUPT) {
        log_error("cannot read the log", log_text("path", report.failed_path),
                  log_text("error", strerror(report.failed_errno)));
        return wal_refuse(refusal, SH_INTERNAL, 0, "a file of the log cannot be read");
    }
    *place = feeding.place;
    return wal_loss_judge(&feeding.search, first_of_log, out, refusal);
}
