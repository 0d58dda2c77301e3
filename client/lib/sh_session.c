/* Sessions: a version vector of what was written and seen. Nothing here is fatal. */
#include "sh_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SESSION_LOGS_MAX = 256 };

struct session_log {
    struct id16 log;
    uint64_t lsn;
};

struct sh_session {
    struct session_log logs[SESSION_LOGS_MAX];
    size_t count;
};

struct sh_session *sh_session_new(void)
{
    return xcalloc(1, sizeof(struct sh_session));
}

void sh_session_free(struct sh_session *session)
{
    free(session);
}

/* With more logs than any cluster has, the oldest are forgotten: nothing waits for them any more. */
static void raise_to(struct sh_session *s, struct id16 log, uint64_t lsn)
{
    for (size_t i = 0; i < s->count; i++) {
        if (!id16_equal(s->logs[i].log, log))
            continue;
        s->logs[i].lsn = lsn > s->logs[i].lsn ? lsn : s->logs[i].lsn;
        return;
    }
    if (s->count == SESSION_LOGS_MAX)
        memmove(s->logs, s->logs + 1, --s->count * sizeof *s->logs);
    s->logs[s->count++] = (struct session_log){log, lsn};
}

void sh_session_wrote(struct sh_session *session, const struct sh_append_result *result)
{
    struct id16 log;
    memcpy(log.bytes, result->log, sizeof log.bytes);
    raise_to(session, log, result->first_lsn + result->count - 1);
}

struct sh_session *shc_session_copy(const struct sh_session *session)
{
    struct sh_session *copy = xmalloc(sizeof *copy);
    *copy = *session;
    return copy;
}

void shc_session_saw(struct sh_session *session, const uint8_t log[16], uint64_t lsn)
{
    struct id16 id;
    memcpy(id.bytes, log, sizeof id.bytes);
    raise_to(session, id, lsn);
}

char *sh_session_text(const struct sh_session *session)
{
    struct buf text = {0};
    char uuid[ID_TEXT];
    for (size_t i = 0; i < session->count; i++) {
        id16_format(session->logs[i].log, uuid);
        buf_printf(&text, "%s %" PRIu64 "\n", uuid, session->logs[i].lsn);
    }
    buf_cstr(&text);
    return (char *)text.data;
}

/* Digits; false: none, or more than 64 bits. */
static bool parse_lsn(const char **at, uint64_t *out)
{
    const char *digit = *at;
    *out = 0;
    for (; *digit >= '0' && *digit <= '9'; digit++)
        if (__builtin_mul_overflow(*out, 10, out) ||
            __builtin_add_overflow(*out, (uint64_t)(*digit - '0'), out))
            return false;
    bool any = digit > *at;
    *at = digit;
    return any;
}

/* Goes behind one line; false: it is none of a session. */
static bool parse_line(const char **at, struct session_log *out)
{
    enum { UUID_BYTES = ID_TEXT - 1 };
    char uuid[ID_TEXT] = "";
    if (strnlen(*at, UUID_BYTES) < UUID_BYTES || (*at)[UUID_BYTES] != ' ')
        return false;
    memcpy(uuid, *at, UUID_BYTES);
    *at += UUID_BYTES + 1;
    return id16_parse(uuid, &out->log) && parse_lsn(at, &out->lsn) && *(*at)++ == '\n';
}

enum sh_error sh_session_take(struct sh_session *session, const char *text)
{
    struct sh_session found = {.count = 0};
    for (const char *at = text; *at != 0;) {
        struct session_log log;
        if (found.count == SESSION_LOGS_MAX || !parse_line(&at, &log)) {
            shc_detail("not the text of a session");
            return SH_BAD_REQUEST;
        }
        raise_to(&found, log.log, log.lsn);
    }
    for (size_t i = 0; i < found.count; i++)
        raise_to(session, found.logs[i].log, found.logs[i].lsn);
    return SH_OK;
}

void shc_session_pack(const struct sh_session *session, struct buf *out)
{
    msgpack_packer pk;
    if (session == NULL)
        return;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, session->count);
    for (size_t i = 0; i < session->count; i++) {
        msgpack_pack_array(&pk, 2);
        mp_pack_bin(&pk, slice_of(session->logs[i].log.bytes, sizeof session->logs[i].log.bytes));
        msgpack_pack_uint64(&pk, session->logs[i].lsn);
    }
}

bool shc_session_see(struct sh_session *session, struct slice applied)
{
    struct mp m = mp_of(applied);
    struct slice log;
    struct id16 id;
    uint32_t count, parts;
    uint64_t lsn;
    if (session == NULL || applied.len == 0)
        return true;
    if (!mp_array(&m, &count))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (!mp_array(&m, &parts) || parts != 2 || !mp_bin(&m, &log) || log.len != sizeof id.bytes ||
            !mp_uint(&m, &lsn))
            return false;
        memcpy(id.bytes, log.data, log.len);
        raise_to(session, id, lsn);
    }
    return true;
}
