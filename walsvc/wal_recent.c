/* The table of last entries. Nothing here is fatal. */
#include "wal_recent.h"

#include <stdlib.h>

#include "digest.h"
#include "frame.h"

enum { PLACE_BITS = 16, PLACES = 1 << PLACE_BITS, CONDITION_PARTS = 3 };

struct wal_recent {
    uint64_t last[PLACES];
};

struct wal_recent *wal_recent_open(uint64_t last_lsn)
{
    struct wal_recent *r = xmalloc(sizeof *r);
    for (size_t i = 0; i < PLACES; i++)
        r->last[i] = last_lsn;
    return r;
}

void wal_recent_free(struct wal_recent *r)
{
    free(r);
}

/* A stream and a key of the same name are apart. */
static size_t place_of(enum wal_recent_kind kind, struct slice name)
{
    uint64_t hash = digest64(name) + (uint64_t)kind;
    return (size_t)((hash * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - PLACE_BITS));
}

void wal_recent_note(struct wal_recent *r, enum wal_recent_kind kind, struct slice name, uint64_t lsn)
{
    r->last[place_of(kind, name)] = lsn;
}

void wal_recent_note_all(struct wal_recent *r, struct slice body, uint64_t lsn)
{
    struct mp m = mp_of(body);
    struct entry e;
    uint32_t count;
    if (!entries_open(&m, &count))
        return;
    for (uint32_t i = 0; i < count && entry_next(&m, &e) == SH_OK; i++) {
        if (e.kind == ENTRY_EVENT)
            wal_recent_note(r, WAL_RECENT_STREAM, e.stream, lsn + i);
        else if (e.kind == ENTRY_PUT || e.kind == ENTRY_DELETE)
            wal_recent_note(r, WAL_RECENT_KEY, e.key, lsn + i);
        else if (e.kind == ENTRY_CURSOR)
            wal_recent_note(r, WAL_RECENT_CURSOR, e.key, lsn + i);
    }
}

uint64_t wal_recent_last(const struct wal_recent *r, enum wal_recent_kind kind, struct slice name)
{
    return r->last[place_of(kind, name)];
}

static enum sh_error next_condition(struct mp *m, uint64_t *kind, struct slice *name, uint64_t *lsn)
{
    static const size_t most[] = {STREAM_NAME_MAX, KEY_MAX, CURSOR_NAME_MAX};
    uint32_t parts;
    if (!mp_array(m, &parts) || parts != CONDITION_PARTS || !mp_uint(m, kind) || *kind > WAL_RECENT_CURSOR ||
        !mp_bin(m, name) || !mp_uint(m, lsn))
        return SH_BAD_REQUEST;
    return name->len > most[*kind] ? SH_TOO_LARGE : SH_OK;
}

enum sh_error wal_recent_check(const struct wal_recent *r, struct slice conditions, uint64_t *look_again)
{
    struct mp m = mp_of(conditions);
    uint32_t count;
    *look_again = 0;
    if (conditions.len == 0)
        return SH_OK;
    if (!mp_array(&m, &count))
        return SH_BAD_REQUEST;
    if (count > WAL_CONDITIONS_MAX)
        return SH_TOO_LARGE;
    for (uint32_t i = 0; i < count; i++) {
        struct slice name;
        uint64_t kind, lsn;
        enum sh_error error = next_condition(&m, &kind, &name, &lsn);
        if (error != SH_OK)
            return error;
        uint64_t last = wal_recent_last(r, (enum wal_recent_kind)kind, name);
        if (last > lsn && last > *look_again)
            *look_again = last;
    }
    if (!mp_at_end(&m))
        return SH_BAD_REQUEST;
    return *look_again > 0 ? SH_CONFLICT : SH_OK;
}
