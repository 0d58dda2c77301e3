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

/* One line; false: none. */
static bool parse_line(const char *line, struct session_log *out)
{
    char uuid[ID_TEXT], end;
    return sscanf(line, "%36[0-9a-f-] %" SCNu64 "%c", uuid, &out->lsn, &end) == 3 && end == '\n' &&
           id16_parse(uuid, &out->log);
}

enum sh_error sh_session_take(struct sh_session *session, const char *text)
{
    struct sh_session found = {.count = 0};
    for (const char *line = text; *line != 0; line = strchr(line, '\n') + 1) {
        struct session_log log;
        if (found.count == SESSION_LOGS_MAX || !parse_line(line, &log)) {
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
