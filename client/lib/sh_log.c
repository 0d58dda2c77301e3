/* Calls about what keeps a log: trims, and what walsvc knows beyond the files. Nothing here is fatal. */
#include "sh_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- trim */

static enum sh_error decode_held_by(struct slice list, struct sh_trim_result *out)
{
    struct mp m = mp_of(list);
    struct slice text;
    uint32_t count;
    if (!mp_array(&m, &count))
        return SH_INTERNAL;
    out->held_by = xcalloc((size_t)count + 1, sizeof *out->held_by); /* count: at most the bytes that came */
    for (uint32_t i = 0; i < count; i++) {
        if (!mp_str(&m, &text))
            return SH_INTERNAL;
        char *copy = out->held_by[out->held_by_count++] = xcalloc(text.len + 1, 1);
        memcpy(copy, text.data, text.len);
    }
    return SH_OK;
}

enum sh_error sh_log_trim(struct sh_client *c, const struct sh_trim_options *options,
                          struct sh_trim_result *result)
{
    struct shc_call call = {0};
    struct msg_log_trim ask = {.before = options->before_lsn, .dry_run = options->dry_run};
    struct msg_log_trim_reply reply;
    if (options->release != NULL)
        ask.release = slice_str(options->release);
    if (options->log != NULL)
        memcpy(ask.log.bytes, options->log, sizeof ask.log.bytes);
    memset(result, 0, sizeof *result);
    enum sh_error e = shc_ask(c, &call, MSG_log_trim, &ask, MSG_log_trim_reply, &reply);
    if (e == SH_OK) {
        result->first_lsn = reply.first_lsn;
        result->segments = reply.segments;
        result->bytes = reply.bytes;
        result->drops = reply.drops;
        e = decode_held_by(reply.held_by, result);
    }
    if (e != SH_OK) {
        sh_log_trim_free(result);
        memset(result, 0, sizeof *result);
    }
    shc_call_free(&call);
    return e;
}

void sh_log_trim_free(struct sh_trim_result *result)
{
    for (size_t i = 0; i < result->held_by_count; i++)
        free(result->held_by[i]);
    free(result->held_by);
    result->held_by = NULL;
    result->held_by_count = 0;
}

/* ---------------------------------------------------------------- info */

static bool skip_rest(struct mp *m, uint32_t fields, uint32_t known)
{
    for (uint32_t i = known; i < fields; i++)
        if (!mp_skip(m))
            return false;
    return true;
}

static bool copy_name(char *out, size_t size, struct slice name)
{
    if (name.len >= size)
        return false;
    memcpy(out, name.data, name.len);
    out[name.len] = 0;
    return true;
}

static bool decode_segment(struct mp *m, struct sh_kept_segment *out)
{
    uint32_t fields;
    uint64_t last, flags;
    if (!mp_array(m, &fields) || fields < 6 || !mp_uint(m, &out->base_lsn) || !mp_uint(m, &out->next_lsn) ||
        !mp_uint(m, &out->position) || !mp_uint(m, &out->bytes) || !mp_uint(m, &last) || !mp_uint(m, &flags))
        return false;
    out->last_ns = (int64_t)last;
    out->due = (flags & 2) != 0;
    out->damaged_header = (flags & 4) != 0;
    out->above_mark = (flags & 8) != 0;
    return skip_rest(m, fields, 6);
}

static bool decode_hold(struct mp *m, void *item)
{
    struct sh_hold *out = item;
    uint32_t fields;
    uint64_t kind, expires;
    struct slice name;
    if (!mp_array(m, &fields) || fields < 6 || !mp_uint(m, &kind) || !mp_str(m, &name) ||
        !mp_uint(m, &out->lsn) || !mp_uint(m, &expires) || !mp_bool(m, &out->broken) ||
        !mp_uint(m, &out->kept_bytes) || !copy_name(out->name, sizeof out->name, name))
        return false;
    out->kind = (enum sh_hold_kind)kind;
    out->expires_ns = (int64_t)expires;
    return skip_rest(m, fields, 6);
}

static bool decode_damage(struct mp *m, void *item)
{
    struct sh_damage *out = item;
    uint32_t fields;
    uint64_t found, accepted;
    struct slice file, copy;
    if (!mp_array(m, &fields) || fields < 8 || !mp_str(m, &file) || !mp_uint(m, &out->offset) ||
        !mp_uint(m, &out->bytes) || !mp_uint(m, &out->first_lsn) || !mp_uint(m, &out->next_lsn) ||
        !mp_uint(m, &found) || !mp_uint(m, &accepted) || !mp_str(m, &copy) ||
        !copy_name(out->file, sizeof out->file, file) || !copy_name(out->copy, sizeof out->copy, copy))
        return false;
    out->found_ns = (int64_t)found;
    out->accepted_ns = (int64_t)accepted;
    if (fields < 9)
        return true;
    return mp_bool(m, &out->differs) && skip_rest(m, fields, 9);
}

static bool decode_segments(struct slice list, struct sh_wal_info *info)
{
    struct mp m = mp_of(list);
    uint32_t count;
    if (!mp_array(&m, &count))
        return false;
    info->segments =
        xrealloc(info->segments, (info->segment_count + (size_t)count + 1) * sizeof *info->segments);
    for (uint32_t i = 0; i < count; i++)
        if (!decode_segment(&m, &info->segments[info->segment_count++]))
            return false;
    return true;
}

static bool take_rest(const struct msg_wal_info_reply *reply, struct sh_wal_info *info)
{
    info->retention_bytes = reply->retention_bytes;
    info->retention_age_ns = reply->retention_age;
    info->member_hold_max = reply->member_hold_max;
    info->disk_free = reply->disk_free;
    info->disk_total = reply->disk_total;
    info->disk_reserve = reply->disk_reserve;
    info->next_segment = reply->next_segment;
    info->scrub_rate = reply->scrub_rate;
    info->scrub_interval_ns = reply->scrub_interval;
    info->scrub_done = reply->scrub_done;
    info->scrub_total = reply->scrub_total;
    info->scrub_damages = reply->scrub_damages;
    info->scrub_last_ns = (int64_t)reply->scrub_last;
    info->scrubbing = reply->scrubbing;
    info->closed = reply->closed;
    const struct shc_items holds = shc_items(reply->holds, sizeof *info->holds, decode_hold),
                           damages = shc_items(reply->damages, sizeof *info->damages, decode_damage);
    info->holds = holds.all;
    info->hold_count = holds.count;
    info->damages = damages.all;
    info->damage_count = damages.count;
    return holds.good && damages.good;
}

/* One page of segments; the rest is taken from the first one. */
static enum sh_error ask_wal_info(struct sh_client *c, const uint8_t *log, uint64_t *from,
                                  struct sh_wal_info *info)
{
    struct shc_call call = {.once = true};
    struct msg_wal_info ask = {.from = *from};
    struct msg_wal_info_reply reply;
    if (log != NULL)
        memcpy(ask.log.bytes, log, sizeof ask.log.bytes);
    enum sh_error e = shc_ask(c, &call, MSG_wal_info, &ask, MSG_wal_info_reply, &reply);
    if (e == SH_OK) {
        bool good = reply.next == 0 || reply.next > *from;
        good = good && decode_segments(reply.segments, info);
        good = good && (*from != 0 || take_rest(&reply, info));
        e = good ? SH_OK : SH_INTERNAL;
        *from = reply.next;
    }
    shc_call_free(&call);
    return e;
}

enum sh_error sh_wal_info(struct sh_client *c, const uint8_t *log, struct sh_wal_info *info)
{
    uint64_t from = 0;
    enum sh_error e;
    memset(info, 0, sizeof *info);
    do
        e = ask_wal_info(c, log, &from, info);
    while (e == SH_OK && from != 0);
    if (e != SH_OK)
        sh_wal_info_free(info);
    return e;
}

void sh_wal_info_free(struct sh_wal_info *info)
{
    free(info->segments);
    free(info->holds);
    free(info->damages);
    memset(info, 0, sizeof *info);
}
