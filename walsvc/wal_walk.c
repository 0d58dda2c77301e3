/* The walk over the newest segment: which of its frames count, what is damaged, how far the log was durable.
 *
 * M is the highest durable end that the mark file or any valid frame tells. The first bad frame makes the
 * walk look at all frames behind it, so that M is known before anything is judged:
 *   - at or above M it is a torn tail: the log ends there;
 *   - below M, with valid frames behind it at or below M: damage; the walk goes on at those;
 *   - below M, with none: damage up to M; the log goes on at M in a new segment.
 * In a copy the frames tell of another node's disk, so only the mark file counts; and the last of the three
 * cases ends the copy where it is good, since what follows is fetched again, the same bytes.
 * Nothing here is fatal. */
#include "wal_recovery.h"

#include <string.h>

#include "clock.h"
#include "hlc.h"
#include "log.h"

#define HEARD_AHEAD_NS (86400 * NS_PER_S)

void wal_recovery_raise(struct recovery *r, const struct log_chain *mark)
{
    if (mark->position > r->mark.position)
        r->mark = *mark;
}

void wal_recovery_hear(struct recovery *r, uint64_t hlc)
{
    uint64_t most = hlc_of_ms((clock_real_ns() + HEARD_AHEAD_NS) / NS_PER_MS);
    r->hlc = hlc_merge(r->hlc, hlc < most ? hlc : most);
}

static uint64_t place(const struct recovery *r, uint64_t offset)
{
    return r->log->segment.position + offset;
}

static void note_claim(struct recovery *r, const struct frame_header *h)
{
    const struct log_chain claim = {h->durable_lsn + 1, h->durable_checksum, h->durable_end};
    if (!r->log->is_copy)
        wal_recovery_raise(r, &claim);
}

static enum sh_error cannot_read(const struct recovery *r)
{
    return wal_recovery_failed(r->log, "cannot read the newest segment", r->scan.error);
}

/* ---------------------------------------------------------------- good frames */

/* Whether the chain behind a frame is another one than M says. */
static bool contradicts_mark(const struct recovery *r, uint64_t before, const struct log_chain *behind)
{
    if (r->mark.position <= before || r->mark.position > behind->position)
        return false;
    return r->mark.position != behind->position || r->mark.checksum != behind->checksum ||
           r->mark.next_lsn != behind->next_lsn;
}

/* Whether the frame at r->end counts; if so, takes it in. */
static bool take_frame(struct recovery *r, const struct frame_header *h, struct slice bytes)
{
    struct log_chain chain = r->log->chain;
    bool first = r->end == SEGMENT_HEADER_BYTES;
    struct slice body = slice_of(bytes.data + FRAME_HEADER_BYTES, bytes.len - FRAME_HEADER_BYTES);
    if (!log_chain_follow(&chain, h) || first != (h->kind == FRAME_CHECKPOINT) ||
        contradicts_mark(r, r->log->chain.position, &chain) ||
        (!r->log->is_copy && !wal_state_apply(r->state, h, body)))
        return false;
    r->log->chain = chain;
    note_claim(r, h);
    r->hlc = hlc_merge(r->hlc, h->hlc);
    if (first) /* it was synced before the file had its name */
        wal_recovery_raise(r, &chain);
    return true;
}

/* Takes in frames up to the first that is bad, at r->end. */
static enum sh_error take_run(struct recovery *r)
{
    struct frame_header h;
    struct slice bytes;
    enum scan_result result;
    do {
        r->end = r->scan.offset;
        result = segment_scan_next(&r->scan, &h, &bytes);
    } while (result == SCAN_FRAME && take_frame(r, &h, bytes));
    r->scan.offset = r->end;
    return result == SCAN_FAILED ? cannot_read(r) : SH_OK;
}

/* ---------------------------------------------------------------- bad ones */

/* Learns from all frames behind the first bad one how far the log was durable. What those behind a gap say of
 * the frames before it is of no use, and could be a client's who put it into a payload: those know better. */
static enum sh_error look_behind(struct recovery *r)
{
    struct frame_header h;
    struct segment_search search;
    enum scan_result result;
    if (r->looked_behind)
        return SH_OK;
    if (!segment_scan_extent(&r->scan, &r->extent))
        return cannot_read(r);
    r->extent = r->extent < r->scan.end ? r->extent : r->scan.end; /* not even a header */
    segment_search_open(&search, &r->scan, &r->log->chain);
    while ((result = segment_search_next(&search, r->extent, &h)) == SCAN_FRAME) {
        if (!search.gap || h.durable_end >= search.from.position)
            note_claim(r, &h);
        wal_recovery_hear(r, h.hlc);
    }
    r->scan.offset = r->end;
    r->looked_behind = true;
    return result == SCAN_FAILED ? cannot_read(r) : SH_OK;
}

/* Whether the log may go on at a valid frame behind bad bytes: not above M, and at M only where M says so. */
static bool leads_on(const struct recovery *r, const struct frame_header *h)
{
    uint64_t position = place(r, r->scan.offset);
    if (position == r->mark.position)
        return h->previous_checksum == r->mark.checksum && h->base_lsn == r->mark.next_lsn;
    return position < r->mark.position && h->base_lsn <= r->mark.next_lsn;
}

/* Enters the bad bytes from r->end on, up to where the chain is `behind`. */
static enum sh_error enter_damage(struct recovery *r, const struct log_chain *behind)
{
    const struct wal_log *log = r->log;
    struct log_damage_range range = {
        .base_lsn = log->segment.base_lsn,
        .offset = r->end,
        .bytes = behind->position - place(r, r->end),
        .position = place(r, r->end),
        .first_lsn = log->chain.next_lsn,
        .next_lsn = behind->next_lsn,
        .checksum_before = log->chain.checksum,
        .checksum_after = behind->checksum,
    };
    int result = wal_damage_add(r->damage, &range, r->end < log->limit ? log->fd : -1);
    return result == 0 ? SH_OK : wal_recovery_failed(log, "cannot keep damaged bytes aside", result);
}

/* The checkpoint was synced before the file had its name, but it is bad, nothing behind it is good, and
 * nobody says that it held more. So no entry is known to be in there; the new segment begins behind all that
 * may have been. */
static void mark_behind_file(struct recovery *r)
{
    const struct wal_log *log = r->log;
    uint64_t bytes = log->limit > log->segment_size ? log->limit : log->segment_size;
    r->mark = log->chain;
    r->mark.position = place(r, bytes);
}

/* Nothing behind r->end is any good up to M, where the copy was durable. */
static enum sh_error shorten_copy(struct recovery *r)
{
    const struct wal_log *log = r->log;
    r->drops = r->end == SEGMENT_HEADER_BYTES;
    if (r->drops)
        return SH_OK;
    log_error("a copy is damaged up to its durable end: it ends before the damage, and what follows is to be "
              "fetched again",
              log_text("dir", log->dir), log_text("file", r->file), log_uint("offset", r->end),
              log_uint("first_lsn", log->chain.next_lsn), log_uint("next_lsn", r->mark.next_lsn),
              log_uint("durable_end", r->mark.position));
    r->mark = log->chain;
    int result = wal_damage_repaired(r->damage, log->segment.base_lsn, r->end, INT64_MAX, &log->chain);
    return result == 0 ? SH_OK : wal_recovery_failed(log, "cannot write the register of damage", result);
}

/* Passes over the bad bytes at r->end, which lie below M. */
static enum sh_error pass_damage(struct recovery *r)
{
    struct frame_header h;
    struct segment_search search;
    enum scan_result result;
    segment_search_open(&search, &r->scan, &r->log->chain);
    search.end = r->mark.position - r->log->segment.position;
    search.end_checksum = r->mark.checksum;
    while ((result = segment_search_next(&search, r->extent, &h)) == SCAN_FRAME)
        if (r->scan.offset > r->end && leads_on(r, &h))
            break;
    if (result == SCAN_FAILED)
        return cannot_read(r);
    if (result == SCAN_END && r->log->is_copy) {
        r->scan.offset = r->end;
        return shorten_copy(r);
    }
    r->begins_anew = result == SCAN_END;
    struct log_chain behind = r->mark;
    if (result == SCAN_FRAME)
        behind = (struct log_chain){h.base_lsn, h.previous_checksum, place(r, r->scan.offset)};
    enum sh_error error = enter_damage(r, &behind);
    r->log->chain = behind;
    r->end = r->begins_anew ? behind.position - r->log->segment.position : r->scan.offset;
    return error;
}

enum sh_error wal_recovery_walk(struct recovery *r)
{
    enum sh_error error = SH_OK;
    while (error == SH_OK && !r->begins_anew && !r->drops) {
        error = take_run(r);
        bool no_checkpoint = r->end == SEGMENT_HEADER_BYTES;
        if (error == SH_OK)
            error = look_behind(r);
        if (error == SH_OK && no_checkpoint && !r->log->is_copy)
            error = wal_past_state(r);
        if (error != SH_OK)
            return error;
        bool is_empty = no_checkpoint && r->mark.position <= place(r, r->end);
        if (is_empty && r->log->is_copy)
            return shorten_copy(r);
        if (is_empty)
            mark_behind_file(r);
        if (place(r, r->end) >= r->mark.position)
            break;
        error = pass_damage(r);
    }
    r->state->next_lsn = r->log->chain.next_lsn;
    r->state->hlc = hlc_merge(r->state->hlc, r->hlc);
    return error;
}
