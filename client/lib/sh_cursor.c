/* Cursors: got, taken, committed. Nothing here is fatal. */
#include "sh_internal.h"

#include <stdlib.h>
#include <string.h>

enum { ROW_PARTS = 11, LOG_PARTS = 3, LIST_MOST = 1000 };
enum { ACTION_COMMIT = 0, ACTION_TAKE_FREE = 1, ACTION_TAKE = 2, ACTION_DELETE = 3 };

struct sh_cursor {
    struct sh_client *client;
    char name[CURSOR_NAME_MAX + 1];
    uint64_t epoch, ttl_ms;
    struct id16 owner;
    struct sh_session *position;
};

static enum sh_error malformed(void)
{
    shc_detail("malformed answer");
    return SH_INTERNAL;
}

/* A name for a message: longer ones than any cursor has are cut, and refused as too long by the node. */
static struct slice name_slice(const char *name)
{
    return slice_of(name, name != NULL ? strnlen(name, CURSOR_NAME_MAX + 1) : 0);
}

static enum sh_error check_name(const char *name)
{
    enum sh_error e = name != NULL ? cursor_name_check(name_slice(name)) : SH_BAD_REQUEST;
    if (e != SH_OK)
        shc_detail("a cursor's name has 1 to 64 bytes of UTF-8, and no control characters");
    return e;
}

/* ---------------------------------------------------------------- gets */

static void free_info(struct sh_cursor_info *info)
{
    sh_session_free(info->position);
    free(info->logs);
}

void sh_cursors_free(struct sh_cursors *cursors)
{
    for (size_t i = 0; i < cursors->count; i++)
        free_info(&cursors->cursors[i]);
    free(cursors->cursors);
    memset(cursors, 0, sizeof *cursors);
}

static bool take_id(struct mp *m, uint8_t out[16])
{
    struct slice id;
    if (!mp_bin(m, &id) || id.len != sizeof(struct id16))
        return false;
    memcpy(out, id.data, id.len);
    return true;
}

static bool decode_log(struct mp *m, void *item)
{
    struct sh_cursor_log *log = item;
    uint32_t parts;
    if (!mp_array(m, &parts) || parts != LOG_PARTS || !take_id(m, log->log) || !mp_uint(m, &log->lsn))
        return false;
    log->held = !mp_nil(m);
    return !log->held || mp_uint(m, &log->durable_lsn);
}

static bool decode_logs(struct mp *m, struct sh_cursor_info *info)
{
    struct slice list;
    if (!mp_raw(m, &list))
        return false;
    struct shc_items items = shc_items(list, sizeof *info->logs, decode_log);
    info->logs = items.all;
    info->log_count = items.count;
    return items.good;
}

static bool decode_info(struct mp *m, void *item)
{
    struct sh_cursor_info *info = item;
    struct slice name, position;
    uint32_t parts;
    uint64_t expires;
    if (!mp_array(m, &parts) || parts != ROW_PARTS || !mp_str(m, &name) ||
        !shc_copy(info->name, sizeof info->name, name) || !mp_uint(m, &info->epoch) ||
        !take_id(m, info->owner) || !mp_raw(m, &position) || !mp_uint(m, &info->written.hlc) ||
        !take_id(m, info->written.log) || !mp_uint(m, &info->written.lsn) || !mp_uint(m, &expires) ||
        !mp_uint(m, &info->ttl_ms) || !mp_bool(m, &info->expired))
        return false;
    info->expires_ms = (int64_t)expires;
    info->position = sh_session_new();
    return shc_session_see(info->position, position) && decode_logs(m, info);
}

static enum sh_error get(struct sh_client *c, struct sh_session *session, struct msg_cursor_get *ask,
                         struct sh_cursors *out)
{
    struct shc_call call = {0};
    struct buf token = {0};
    struct msg_cursor_get_reply reply;
    shc_session_pack(session, &token);
    ask->after = buf_slice(&token);
    ask->wait_ms = shc_wait_ms(c);
    enum sh_error e = shc_ask(c, &call, MSG_cursor_get, ask, MSG_cursor_get_reply, &reply);
    if (e == SH_OK) {
        struct shc_items items = shc_items(reply.cursors, sizeof *out->cursors, decode_info);
        out->cursors = items.all;
        out->count = items.count;
        out->more = reply.more;
        if (!items.good || !shc_copy(out->last, sizeof out->last, reply.last) ||
            (out->more && out->last[0] == 0) || !shc_session_see(session, reply.applied))
            e = malformed();
    }
    if (e != SH_OK)
        sh_cursors_free(out);
    shc_call_free(&call);
    buf_free(&token);
    return e;
}

enum sh_error sh_cursor_get(struct sh_client *c, struct sh_session *session, const char *name,
                            struct sh_cursors *out)
{
    struct msg_cursor_get ask = {.name = name_slice(name)};
    memset(out, 0, sizeof *out);
    enum sh_error e = check_name(name);
    if (e == SH_OK)
        e = get(c, session, &ask, out);
    if (e != SH_OK || out->count == 1)
        return e;
    sh_cursors_free(out);
    return malformed();
}

enum sh_error sh_cursor_list(struct sh_client *c, struct sh_session *session,
                             const struct sh_cursor_list_options *o, struct sh_cursors *out)
{
    struct msg_cursor_get ask = {
        .prefix = name_slice(o->prefix),
        .behind = name_slice(o->behind),
        .most = o->most > 0 ? o->most : LIST_MOST,
    };
    memset(out, 0, sizeof *out);
    if (ask.prefix.len <= CURSOR_NAME_MAX && ask.behind.len <= CURSOR_NAME_MAX && ask.most <= LIST_MOST)
        return get(c, session, &ask, out);
    shc_detail("a cursor's name has at most 64 bytes, an answer at most 1,000 cursors");
    return SH_TOO_LARGE;
}

/* ---------------------------------------------------------------- sets */

/* What a set was answered. */
struct set_result {
    uint64_t epoch, ttl_ms;
    struct sh_session *position; /* the caller's to free */
};

/* message: but for the token and the position. */
static enum sh_error set(struct sh_client *c, struct sh_session *session, bool waits,
                         const struct sh_session *position, struct msg_cursor_set *m, struct set_result *out)
{
    struct shc_call call = {.overload_ends = true};
    struct buf token = {0}, packed = {0};
    struct msg_cursor_set_reply reply;
    if (waits)
        shc_session_pack(session, &token);
    shc_session_pack(position, &packed);
    m->after = buf_slice(&token);
    m->position = buf_slice(&packed);
    m->wait_ms = shc_wait_ms(c);
    enum sh_error e = shc_ask(c, &call, MSG_cursor_set, m, MSG_cursor_set_reply, &reply);
    out->position = sh_session_new();
    if (e == SH_OK && !shc_session_see(out->position, reply.position))
        e = malformed();
    if (e == SH_OK && session != NULL)
        shc_session_raise(session, reply.log, reply.lsn);
    if (e == SH_OK)
        shc_session_see_hlc(session, reply.hlc);
    out->epoch = e == SH_OK ? reply.epoch : 0;
    out->ttl_ms = e == SH_OK ? reply.ttl_ms : 0;
    shc_call_free(&call);
    buf_free(&token);
    buf_free(&packed);
    return e;
}

/* Of an open cursor: it is where it was set to. */
static enum sh_error set_open(struct sh_cursor *cursor, struct sh_session *session, unsigned action,
                              const struct sh_session *position)
{
    struct msg_cursor_set m = {
        .name = slice_str(cursor->name),
        .action = action,
        .epoch = cursor->epoch,
        .owner = cursor->owner,
        .ttl_ms = cursor->ttl_ms,
    };
    struct set_result done;
    enum sh_error e = set(cursor->client, session, action != ACTION_COMMIT, position, &m, &done);
    if (e != SH_OK) {
        sh_session_free(done.position);
        return e;
    }
    sh_session_free(cursor->position);
    cursor->position = done.position;
    cursor->epoch = done.epoch;
    return SH_OK;
}

/* Goes on as the owner that it was. When the node says otherwise, a commit is asked for, of no other
 * position: that waits until the epoch is known there, or says whose the cursor is. */
static enum sh_error resume(struct sh_cursor *cursor, struct sh_session *session)
{
    struct sh_cursors found;
    enum sh_error e = sh_cursor_get(cursor->client, session, cursor->name, &found);
    if (e != SH_OK)
        return e;
    struct sh_cursor_info *info = &found.cursors[0];
    bool is_its = info->epoch == cursor->epoch &&
                  memcmp(info->owner, cursor->owner.bytes, sizeof cursor->owner.bytes) == 0;
    if (is_its) {
        cursor->position = info->position;
        info->position = NULL;
    }
    sh_cursors_free(&found);
    return is_its ? SH_OK : set_open(cursor, session, ACTION_COMMIT, NULL);
}

static enum sh_error check_options(const struct sh_cursor_options *o)
{
    static const uint8_t nobody[sizeof o->owner];
    enum sh_error e = check_name(o->name);
    if (e == SH_OK && o->ttl_ms > CURSOR_TTL_MS_MAX) {
        shc_detail("a cursor lasts at most 365 days without a commit");
        e = SH_BAD_REQUEST;
    } else if (e == SH_OK && o->epoch > 0 &&
               (o->take || o->position != NULL || memcmp(o->owner, nobody, sizeof nobody) == 0)) {
        shc_detail("an epoch is of an owner, who takes nothing");
        e = SH_BAD_REQUEST;
    }
    return e;
}

enum sh_error sh_cursor_open(struct sh_client *c, struct sh_session *session,
                             const struct sh_cursor_options *o, struct sh_cursor **out)
{
    enum sh_error e = check_options(o);
    *out = NULL;
    if (e != SH_OK)
        return e;
    struct sh_cursor *cursor = xcalloc(1, sizeof *cursor);
    cursor->client = c;
    cursor->epoch = o->epoch;
    cursor->ttl_ms = o->ttl_ms;
    shc_copy(cursor->name, sizeof cursor->name, name_slice(o->name));
    if (o->epoch > 0) {
        memcpy(cursor->owner.bytes, o->owner, sizeof o->owner);
        e = resume(cursor, session);
    } else {
        cursor->owner = id16_random();
        e = set_open(cursor, session, o->take ? ACTION_TAKE : ACTION_TAKE_FREE, o->position);
    }
    if (e == SH_OK)
        *out = cursor;
    else
        sh_cursor_close(cursor);
    return e;
}

const struct sh_session *sh_cursor_position(const struct sh_cursor *cursor)
{
    return cursor->position;
}

uint64_t sh_cursor_epoch(const struct sh_cursor *cursor, uint8_t owner[16])
{
    if (owner != NULL)
        memcpy(owner, cursor->owner.bytes, sizeof cursor->owner.bytes);
    return cursor->epoch;
}

enum sh_error sh_cursor_commit(struct sh_cursor *cursor, struct sh_session *session,
                               const struct sh_session *position)
{
    return set_open(cursor, session, ACTION_COMMIT, position);
}

void sh_cursor_close(struct sh_cursor *cursor)
{
    if (cursor == NULL)
        return;
    sh_session_free(cursor->position);
    free(cursor);
}

enum sh_error sh_cursor_delete(struct sh_client *c, struct sh_session *session, const char *name,
                               uint64_t epoch)
{
    struct msg_cursor_set m = {
        .name = name_slice(name), .action = ACTION_DELETE, .epoch = epoch, .owner = id16_random()};
    struct set_result done = {0};
    enum sh_error e = check_name(name);
    if (e == SH_OK)
        e = set(c, session, true, NULL, &m, &done);
    sh_session_free(done.position);
    return e;
}
