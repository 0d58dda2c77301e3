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
    uint64_t sent; /* by the last append that was prepared: up to where it names that log; 0: not */
    uint64_t told; /* up to where the frames of the log `told` do */
};

struct sh_session {
    struct session_log logs[SESSION_LOGS_MAX];
    size_t count;
    uint64_t hlc;     /* the highest that was written or seen */
    struct id16 told; /* the log that was written to last */
};

static const char hlc_line[] = "hlc ";

struct sh_session *sh_session_new(void)
{
    return xcalloc(1, sizeof(struct sh_session));
}

void sh_session_free(struct sh_session *session)
{
    free(session);
}

/* With more logs than any cluster has, the oldest are forgotten: nothing waits for them any more. */
void shc_session_raise(struct sh_session *s, struct id16 log, uint64_t lsn)
{
    for (size_t i = 0; i < s->count; i++) {
        if (!id16_equal(s->logs[i].log, log))
            continue;
        s->logs[i].lsn = lsn > s->logs[i].lsn ? lsn : s->logs[i].lsn;
        return;
    }
    if (s->count == SESSION_LOGS_MAX)
        memmove(s->logs, s->logs + 1, --s->count * sizeof *s->logs);
    s->logs[s->count++] = (struct session_log){.log = log, .lsn = lsn};
}

void sh_session_wrote(struct sh_session *session, const struct sh_append_result *result)
{
    struct id16 log;
    memcpy(log.bytes, result->log, sizeof log.bytes);
    shc_session_raise(session, log, result->first_lsn + result->count - 1);
    shc_session_see_hlc(session, result->seen_hlc > result->hlc ? result->seen_hlc : result->hlc);
}

void shc_session_see_hlc(struct sh_session *session, uint64_t hlc)
{
    if (session != NULL && hlc > session->hlc)
        session->hlc = hlc;
}

uint64_t shc_session_hlc(const struct sh_session *session)
{
    return session != NULL ? session->hlc : 0;
}

uint64_t sh_session_lsn(const struct sh_session *session, const uint8_t log[16])
{
    for (size_t i = 0; i < session->count; i++)
        if (memcmp(session->logs[i].log.bytes, log, sizeof session->logs[i].log.bytes) == 0)
            return session->logs[i].lsn;
    return 0;
}

void sh_session_raise(struct sh_session *session, const uint8_t log[16], uint64_t lsn)
{
    struct id16 id;
    memcpy(id.bytes, log, sizeof id.bytes);
    shc_session_raise(session, id, lsn);
}

char *sh_session_text(const struct sh_session *session)
{
    struct buf text = {0};
    char uuid[ID_TEXT];
    for (size_t i = 0; i < session->count; i++) {
        id16_format(session->logs[i].log, uuid);
        buf_printf(&text, "%s %" PRIu64 "\n", uuid, session->logs[i].lsn);
    }
    if (session->hlc > 0)
        buf_printf(&text, "%s%" PRIu64 "\n", hlc_line, session->hlc);
    buf_cstr(&text);
    return (char *)text.data;
}

/* Digits; false: none, or more than 64 bits. */
static bool parse_number(const char **at, uint64_t *out)
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
    return id16_parse(uuid, &out->log) && parse_number(at, &out->lsn) && *(*at)++ == '\n';
}

/* The same with the line of the HLC. */
static bool parse_hlc(const char **at, struct sh_session *out)
{
    uint64_t hlc;
    *at += sizeof hlc_line - 1;
    if (!parse_number(at, &hlc) || *(*at)++ != '\n')
        return false;
    shc_session_see_hlc(out, hlc);
    return true;
}

enum sh_error sh_session_take(struct sh_session *session, const char *text)
{
    struct sh_session found = {.count = 0};
    for (const char *at = text; *at != 0;) {
        struct session_log log;
        if (strncmp(at, hlc_line, sizeof hlc_line - 1) == 0 && parse_hlc(&at, &found))
            continue;
        if (found.count == SESSION_LOGS_MAX || !parse_line(&at, &log)) {
            shc_detail("not the text of a session");
            return SH_BAD_REQUEST;
        }
        shc_session_raise(&found, log.log, log.lsn);
    }
    for (size_t i = 0; i < found.count; i++)
        shc_session_raise(session, found.logs[i].log, found.logs[i].lsn);
    shc_session_see_hlc(session, found.hlc);
    return SH_OK;
}

/* What the log does not come after anyway. */
static bool is_untold(const struct sh_session *s, struct id16 target, const struct session_log *l)
{
    return !id16_equal(l->log, target) && l->lsn > (id16_equal(s->told, target) ? l->told : 0);
}

void shc_session_after(struct sh_session *s, struct id16 target, struct buf *out)
{
    struct buf positions = {0};
    msgpack_packer pk;
    size_t count = 0;
    for (size_t i = 0; i < s->count; i++) {
        bool is_named = is_untold(s, target, &s->logs[i]);
        s->logs[i].sent = is_named ? s->logs[i].lsn : 0;
        count += is_named;
    }
    if (count == 0)
        return;
    mp_packer(&pk, &positions);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < s->count; i++) {
        if (s->logs[i].sent == 0)
            continue;
        msgpack_pack_array(&pk, 2);
        mp_pack_bin(&pk, slice_of(s->logs[i].log.bytes, sizeof s->logs[i].log.bytes));
        msgpack_pack_uint64(&pk, s->logs[i].sent);
    }
    const struct entry after = {.kind = ENTRY_AFTER, .after = buf_slice(&positions)};
    mp_packer(&pk, out);
    entry_pack(&pk, &after);
    buf_free(&positions);
}

void shc_session_told(struct sh_session *s, struct id16 target)
{
    bool is_same = id16_equal(s->told, target);
    for (size_t i = 0; i < s->count; i++) {
        uint64_t before = is_same ? s->logs[i].told : 0;
        s->logs[i].told = s->logs[i].sent > before ? s->logs[i].sent : before;
    }
    s->told = target;
}

void shc_session_copy(struct sh_session *to, const struct sh_session *from)
{
    *to = *from;
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
        shc_session_raise(session, id, lsn);
    }
    return true;
}
