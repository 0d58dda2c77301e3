/* Which damaged range walsvc tells of comes next. Nothing here is fatal. */
#include <stdio.h>

#include "repl_shell.h"

struct damaged_range {
    struct slice file;
    uint64_t offset, bytes, first_lsn, next_lsn, found, accepted;
    bool differs;
};

static bool next_range(struct mp *m, struct damaged_range *out)
{
    uint32_t parts;
    bool good = mp_array(m, &parts) && parts >= 7 && mp_str(m, &out->file) && mp_uint(m, &out->offset) &&
                mp_uint(m, &out->bytes) && mp_uint(m, &out->first_lsn) && mp_uint(m, &out->next_lsn) &&
                mp_uint(m, &out->found) && mp_uint(m, &out->accepted);
    out->differs = false;
    if (good && parts >= 9)
        good = mp_skip(m) && mp_bool(m, &out->differs);
    for (uint32_t i = parts >= 9 ? 9 : 7; good && i < parts; i++)
        good = mp_skip(m);
    return good;
}

/* The position of the segment with that base LSN. */
static bool position_of(struct slice segments, uint64_t base_lsn, uint64_t *position)
{
    struct mp m = mp_of(segments);
    uint32_t count, parts;
    uint64_t base, next;
    bool good = mp_array(&m, &count);
    for (uint32_t i = 0; good && i < count; i++) {
        good = mp_array(&m, &parts) && parts >= 3 && mp_uint(&m, &base) && mp_uint(&m, &next) &&
               mp_uint(&m, position);
        for (uint32_t k = 3; good && k < parts; k++)
            good = mp_skip(&m);
        if (good && base == base_lsn)
            return true;
    }
    return false;
}

static bool is_before(uint64_t segment, uint64_t offset, uint64_t than_segment, uint64_t than_offset)
{
    return segment < than_segment || (segment == than_segment && offset < than_offset);
}

/* The first range behind the place that nobody has given up; its position is not known yet. */
static bool first_behind(struct slice damages, const struct repl_ask_damage *ask, struct repl_damage *out)
{
    struct mp m = mp_of(damages);
    struct damaged_range range;
    char name[SEGMENT_NAME_MAX];
    uint64_t base;
    uint32_t count;
    bool good = damages.len > 0 && mp_array(&m, &count);
    *out = (struct repl_damage){0};
    for (uint32_t i = 0; good && i < count; i++) {
        good = next_range(&m, &range) && range.file.len < sizeof name;
        if (!good || range.accepted > 0)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)range.file.len, (const char *)range.file.data);
        if (segment_name_parse(name, &base) && is_before(ask->segment, ask->offset, base, range.offset) &&
            (out->bytes == 0 || is_before(base, range.offset, out->segment, out->offset)))
            *out = (struct repl_damage){
                .segment = base,
                .offset = range.offset,
                .bytes = range.bytes,
                .lsn = range.first_lsn,
                .differs = range.differs,
            };
    }
    return out->bytes > 0;
}

bool repl_damage_find(const struct msg_wal_info_reply *reply, struct repl_ask_damage *ask, uint64_t from,
                      struct repl_damage *out)
{
    while (first_behind(reply->damages, ask, out)) {
        if (position_of(reply->segments, out->segment, &out->position)) {
            out->position += out->offset;
            return true;
        }
        if (from != out->segment)
            return false;
        ask->segment = out->segment; /* nothing tells where it is */
        ask->offset = out->offset;
    }
    *out = (struct repl_damage){0};
    return true;
}
