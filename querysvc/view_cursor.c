/* Cursors: bytes, rules and holds. Nothing here is fatal.
 *
 *    0  1  5 a cursor, 6 deleted
 *    1  8  epoch
 *    9 16  owner
 *   25  8  HLC of the frame that wrote it
 *   33 16  log uuid, and
 *   49  8  LSN of the entry
 *   57  8  expires, ms since 1970
 *   65  8  ttl, ms
 *   73     the position, a version vector in msgpack */
#include "view_cursor.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"

enum { TAG_CURSOR = 5, TAG_DELETED = 6, CURSOR_HEAD = 73 };

/* ---------------------------------------------------------------- rows */

void view_cursor_encode(const struct view_cursor *c, struct buf *out)
{
    uint8_t *at = buf_reserve(out, CURSOR_HEAD);
    at[0] = c->deleted ? TAG_DELETED : TAG_CURSOR;
    put_u64(at + 1, c->epoch);
    memcpy(at + 9, c->owner.bytes, sizeof c->owner.bytes);
    put_u64(at + 25, c->version.hlc);
    memcpy(at + 33, c->version.log.bytes, sizeof c->version.log.bytes);
    put_u64(at + 49, c->version.lsn);
    put_u64(at + 57, c->expires_ms);
    put_u64(at + 65, c->ttl_ms);
    out->len += CURSOR_HEAD;
    buf_append(out, c->position.data, c->position.len);
}

bool view_cursor_decode(struct slice bytes, struct view_cursor *out)
{
    const uint8_t *at = bytes.data;
    if (bytes.len < CURSOR_HEAD || (at[0] != TAG_CURSOR && at[0] != TAG_DELETED))
        return false;
    *out = (struct view_cursor){
        .epoch = get_u64(at + 1),
        .version = {.hlc = get_u64(at + 25), .lsn = get_u64(at + 49)},
        .expires_ms = get_u64(at + 57),
        .ttl_ms = get_u64(at + 65),
        .deleted = at[0] == TAG_DELETED,
        .position = slice_of(at + CURSOR_HEAD, bytes.len - CURSOR_HEAD),
    };
    memcpy(out->owner.bytes, at + 9, sizeof out->owner.bytes);
    memcpy(out->version.log.bytes, at + 33, sizeof out->version.log.bytes);
    return true;
}

/* Two nodes may give one epoch to two owners before they hear of each other: then one of these owners has it
 * for good, whichever writes last, so that not both give way. */
int view_cursor_compare(const struct view_cursor *a, const struct view_cursor *b)
{
    if (a->epoch != b->epoch)
        return a->epoch < b->epoch ? -1 : 1;
    int order = memcmp(a->owner.bytes, b->owner.bytes, sizeof a->owner.bytes);
    return order != 0 ? order : view_version_compare(&a->version, &b->version);
}

bool view_cursor_lives(const struct view_cursor *c, uint64_t now_ms)
{
    return !c->deleted && c->expires_ms > now_ms;
}

bool view_cursor_merge(const struct slice *existing, const struct slice *changes, size_t count,
                       struct buf *out)
{
    struct view_cursor best = {0}, other;
    struct slice winner = {0};
    for (size_t i = 0; i < count + 1; i++) {
        const struct slice *next = i == 0 ? existing : &changes[i - 1];
        if (next == NULL)
            continue;
        if (!view_cursor_decode(*next, &other))
            return false;
        if (winner.data == NULL || view_cursor_compare(&other, &best) > 0) {
            winner = *next;
            best = other;
        }
    }
    buf_append(out, winner.data, winner.len);
    return true;
}

/* ---------------------------------------------------------------- sets */

__attribute__((format(printf, 3, 4))) static void refuse(struct cursor_decision *out, enum sh_error error,
                                                         const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(out->text, sizeof out->text, format, args);
    va_end(args);
    out->error = error;
}

static void refuse_owner(struct cursor_decision *out, const struct view_cursor *known)
{
    char owner[ID_TEXT];
    id16_format(known->owner, owner);
    out->epoch = known->epoch;
    refuse(out, SH_CONFLICT, "the cursor is in epoch %llu, owned by %s", (unsigned long long)known->epoch,
           owner);
}

/* False, refused: what it was to be is behind what it is. */
static bool check_ahead(const struct cursor_ask *ask, const struct version_vector *position,
                        struct cursor_decision *out)
{
    struct vector_place behind;
    char log[ID_TEXT];
    if (ask->position == NULL || vector_covers(ask->position, position, &behind))
        return true;
    id16_format(behind.log, log);
    refuse(out, SH_CONFLICT,
           "the cursor is at LSN %llu of log %s, and goes back, to %llu, in a new epoch only",
           (unsigned long long)behind.lsn, log, (unsigned long long)vector_lsn(ask->position, behind.log));
    return false;
}

static void decide_commit(const struct cursor_ask *ask, const struct view_cursor *known,
                          struct cursor_decision *out)
{
    if (known == NULL || (known->deleted && ask->epoch <= known->epoch)) {
        refuse(out, SH_NOT_FOUND, known == NULL ? "there is no such cursor" : "the cursor was deleted");
    } else if (ask->epoch > known->epoch) {
        refuse(out, SH_UNAVAILABLE, "epoch %llu of the cursor is not known on this node yet, only %llu",
               (unsigned long long)ask->epoch, (unsigned long long)known->epoch);
    } else if (ask->epoch < known->epoch || !id16_equal(ask->owner, known->owner)) {
        refuse_owner(out, known);
    } else {
        out->epoch = known->epoch;
        check_ahead(ask, &out->position, out);
    }
}

static void next_epoch(const struct view_cursor *known, struct cursor_decision *out)
{
    uint64_t epoch = known != NULL ? known->epoch : 0;
    out->epoch = epoch + 1;
    if (epoch == UINT64_MAX)
        refuse(out, SH_CONFLICT, "the cursor has no further epoch");
}

static void decide_take(const struct cursor_ask *ask, const struct view_cursor *known, uint64_t now_ms,
                        struct cursor_decision *out)
{
    bool is_own = known != NULL && !known->deleted && id16_equal(ask->owner, known->owner);
    if (ask->action == CURSOR_TAKE_FREE && known != NULL && view_cursor_lives(known, now_ms) && !is_own)
        refuse_owner(out, known);
    else if (is_own && (ask->position == NULL || vector_covers(ask->position, &out->position, NULL)))
        out->epoch = known->epoch; /* asked again, as requests are whose answer was lost */
    else
        next_epoch(known, out);
}

static void decide_delete(const struct cursor_ask *ask, const struct view_cursor *known,
                          struct cursor_decision *out)
{
    bool was_own = known != NULL && known->deleted && id16_equal(ask->owner, known->owner);
    if (was_own)
        out->epoch = known->epoch; /* asked again */
    else if (known == NULL || known->deleted)
        refuse(out, SH_NOT_FOUND, "there is no such cursor");
    else if (ask->epoch != 0 && ask->epoch != known->epoch)
        refuse_owner(out, known);
    else
        next_epoch(known, out);
}

void cursor_decide(const struct cursor_ask *ask, const struct view_cursor *known, uint64_t now_ms,
                   struct cursor_decision *out)
{
    out->error = SH_OK;
    out->text[0] = 0;
    out->epoch = 0;
    out->position.count = 0;
    if (known != NULL && !known->deleted)
        vector_decode(known->position, &out->position); /* it was checked when it was appended */
    out->ttl_ms = ask->ttl_ms > 0                      ? ask->ttl_ms
                  : known != NULL && known->ttl_ms > 0 ? known->ttl_ms
                                                       : ask->ttl_default_ms;
    if (ask->action == CURSOR_COMMIT)
        decide_commit(ask, known, out);
    else if (ask->action == CURSOR_DELETE)
        decide_delete(ask, known, out);
    else
        decide_take(ask, known, now_ms, out);
    if (ask->action == CURSOR_DELETE)
        out->position.count = 0;
    else if (ask->position != NULL)
        out->position = *ask->position;
}

/* ---------------------------------------------------------------- holds */

void cursor_wants_clear(struct cursor_wants *wants)
{
    for (size_t i = 0; i < wants->count; i++)
        free(wants->all[i].places);
    wants->count = 0;
}

bool cursor_wants_add(struct cursor_wants *wants, struct slice name, const struct view_cursor *cursor)
{
    if (wants->count == CURSOR_HOLDS_MAX || name.len > CURSOR_NAME_MAX)
        return false;
    struct version_vector whole;
    if (!vector_decode(cursor->position, &whole))
        whole.count = 0; /* everything is held */
    struct cursor_want *want = &wants->all[wants->count++];
    memset(want->name, 0, sizeof want->name);
    memcpy(want->name, name.data, name.len);
    want->expires_ms = cursor->expires_ms;
    size_t bytes = sizeof whole.all[0] * whole.count;
    want->places = xmalloc(bytes + 1);
    memcpy(want->places, whole.all, bytes);
    want->place_count = whole.count;
    assert(wants->count < 2 || strcmp(want[-1].name, want->name) < 0);
    return true;
}

void cursor_log_free(struct cursor_log *log)
{
    free(log->all);
    log->all = NULL;
    log->count = 0;
}

/* Index of the first whose name isn't before. */
static size_t place_of(const struct cursor_log *log, const char *name)
{
    size_t low = 0, high = log->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(log->all[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct cursor_hold *hold_of(const struct cursor_log *log, const char *name)
{
    size_t at = place_of(log, name);
    return at < log->count && strcmp(log->all[at].name, name) == 0 ? &log->all[at] : NULL;
}

void cursor_log_set(struct cursor_log *log, const char *name, uint64_t lsn, uint64_t until_ms)
{
    struct cursor_hold *hold = hold_of(log, name);
    if (hold == NULL) {
        size_t at = place_of(log, name);
        log->all = xrealloc(log->all, (log->count + 1) * sizeof *log->all);
        hold = &log->all[at];
        memmove(hold + 1, hold, (log->count++ - at) * sizeof *hold);
        *hold = (struct cursor_hold){0};
        snprintf(hold->name, sizeof hold->name, "%s", name);
    }
    hold->lsn = lsn;
    hold->until_ms = until_ms;
    hold->gone = false;
}

void cursor_log_remove(struct cursor_log *log, const char *name)
{
    struct cursor_hold *hold = hold_of(log, name);
    if (hold == NULL)
        return;
    size_t at = (size_t)(hold - log->all);
    memmove(hold, hold + 1, (--log->count - at) * sizeof *hold);
}

void cursor_log_gone(struct cursor_log *log, struct slice name)
{
    char text[CURSOR_NAME_MAX + 1] = "";
    if (name.len > CURSOR_NAME_MAX)
        return;
    memcpy(text, name.data, name.len);
    struct cursor_hold *hold = hold_of(log, text);
    if (hold != NULL)
        hold->gone = true;
}

static uint64_t wanted_lsn(const struct cursor_want *want, struct id16 log)
{
    for (size_t i = 0; i < want->place_count; i++)
        if (id16_equal(want->places[i].log, log))
            return want->places[i].lsn + 1;
    return 1;
}

/* A hold is renewed when it would last less than half as long as its cursor: not with each commit, and long
 * before it ends. */
static bool is_to_set(const struct cursor_hold *hold, const struct cursor_want *want, uint64_t lsn,
                      bool caught_up, uint64_t now_ms)
{
    if (hold == NULL)
        return true;
    if (!caught_up)
        return false;
    uint64_t left_ms = want->expires_ms - now_ms,
             held_ms = hold->until_ms > now_ms ? hold->until_ms - now_ms : 0;
    if (left_ms > CURSOR_HOLD_MS_MAX)
        left_ms = CURSOR_HOLD_MS_MAX;
    return hold->lsn != lsn || held_ms < left_ms / 2;
}

static void step_set(const struct cursor_want *want, uint64_t lsn, uint64_t now_ms, struct cursor_step *out)
{
    uint64_t left_ms = want->expires_ms - now_ms;
    out->kind = HOLDS_SET;
    memcpy(out->name, want->name, sizeof out->name);
    out->lsn = lsn;
    out->ttl_ms = left_ms < CURSOR_HOLD_MS_MAX ? left_ms : CURSOR_HOLD_MS_MAX;
}

static bool is_wanted(const struct cursor_wants *wants, const char *name, uint64_t now_ms)
{
    for (size_t i = 0; i < wants->count; i++)
        if (strcmp(wants->all[i].name, name) == 0)
            return wants->all[i].expires_ms > now_ms;
    return false;
}

void cursor_holds_step(const struct cursor_log *log, const struct cursor_wants *wants, bool caught_up,
                       uint64_t now_ms, struct cursor_step *out)
{
    *out = (struct cursor_step){.kind = HOLDS_DONE};
    for (size_t i = 0; i < wants->count && out->kind == HOLDS_DONE; i++) {
        const struct cursor_want *want = &wants->all[i];
        uint64_t lsn = wanted_lsn(want, log->log);
        if (want->expires_ms > now_ms && is_to_set(hold_of(log, want->name), want, lsn, caught_up, now_ms))
            step_set(want, lsn, now_ms, out);
    }
    for (size_t i = 0; i < log->count && out->kind == HOLDS_DONE && caught_up; i++) {
        if (!log->all[i].gone || is_wanted(wants, log->all[i].name, now_ms))
            continue;
        out->kind = HOLDS_REMOVE;
        memcpy(out->name, log->all[i].name, sizeof out->name);
    }
}
