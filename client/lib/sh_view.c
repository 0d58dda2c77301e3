/* The view: how far it is, and a digest of its rows. Nothing here is fatal. */
#include "sh_internal.h"

#include <stdlib.h>
#include <string.h>

enum { INFO_PARTS = 4, KIND_PARTS = 3 };

static enum sh_error malformed(void)
{
    shc_detail("malformed answer");
    return SH_INTERNAL;
}

static bool take_bytes(struct mp *m, uint8_t *out, size_t len)
{
    struct slice bytes;
    if (!mp_bin(m, &bytes) || bytes.len != len)
        return false;
    memcpy(out, bytes.data, len);
    return true;
}

/* What a newer version has added. */
static bool skip_parts(struct mp *m, uint32_t from, uint32_t parts)
{
    for (uint32_t i = from; i < parts; i++)
        if (!mp_skip(m))
            return false;
    return true;
}

/* ---------------------------------------------------------------- how far it is */

static bool decode_log(struct mp *m, void *item)
{
    struct sh_view_log *out = item;
    uint32_t parts;
    return mp_array(m, &parts) && parts >= INFO_PARTS && take_bytes(m, out->log, sizeof out->log) &&
           mp_uint(m, &out->applied_lsn) && mp_uint(m, &out->flushed_lsn) && mp_uint(m, &out->durable_lsn) &&
           skip_parts(m, INFO_PARTS, parts);
}

/* False: malformed. */
static bool take_state(const struct msg_view_info_reply *reply, struct sh_view_info *out)
{
    out->opened = reply->opened;
    out->state = (enum sh_view_state)reply->state;
    out->percent = (uint32_t)reply->percent;
    out->fetched_bytes = reply->fetched_bytes;
    out->fetched_rows = reply->fetched_rows;
    out->rows = reply->rows;
    return shc_copy(out->error, sizeof out->error, reply->error) &&
           shc_copy(out->peer, sizeof out->peer, reply->peer) &&
           shc_copy(out->lacks, sizeof out->lacks, reply->lacks);
}

enum sh_error sh_view_info(struct sh_client *c, struct sh_view_info *out)
{
    struct shc_call call = {0};
    struct msg_view_info_reply reply;
    const struct msg_view_info ask = {0};
    memset(out, 0, sizeof *out);
    enum sh_error e = shc_ask(c, &call, MSG_view_info, &ask, MSG_view_info_reply, &reply);
    if (e == SH_OK) {
        const struct shc_items logs = shc_items(reply.logs, sizeof *out->logs, decode_log);
        out->logs = logs.all;
        out->log_count = logs.count;
        if (!logs.good || !take_state(&reply, out)) {
            sh_view_info_free(out);
            e = malformed();
        }
    }
    shc_call_free(&call);
    return e;
}

void sh_view_info_free(struct sh_view_info *info)
{
    free(info->logs);
    memset(info, 0, sizeof *info);
}

/* ---------------------------------------------------------------- digests */

static bool decode_kind(struct mp *m, void *item)
{
    struct sh_view_kind *out = item;
    uint32_t parts;
    uint64_t kind;
    if (!mp_array(m, &parts) || parts < KIND_PARTS || !mp_uint(m, &kind) || kind == 0 || kind > INT8_MAX ||
        !mp_uint(m, &out->rows) || !take_bytes(m, out->digest, sizeof out->digest))
        return false;
    out->kind = (char)kind;
    return skip_parts(m, KIND_PARTS, parts);
}

static bool take_digest(const struct msg_view_digest_reply *reply, struct sh_view_digest *out)
{
    const struct shc_items kinds = shc_items(reply->kinds, sizeof *out->kinds, decode_kind);
    out->kinds = kinds.all;
    out->kind_count = kinds.count;
    out->at_ms = (int64_t)reply->at_ms;
    out->applied = sh_session_new();
    if (reply->digest.len == sizeof out->digest)
        memcpy(out->digest, reply->digest.data, sizeof out->digest);
    return kinds.good && reply->digest.len == sizeof out->digest &&
           shc_session_see(out->applied, reply->applied);
}

enum sh_error sh_view_digest(struct sh_client *c, int64_t at_ms, struct sh_view_digest *out)
{
    struct shc_call call = {0};
    struct msg_view_digest_reply reply;
    memset(out, 0, sizeof *out);
    if (at_ms < 0) {
        shc_detail("a time before 1970");
        return SH_BAD_REQUEST;
    }
    const struct msg_view_digest ask = {.at_ms = (uint64_t)at_ms};
    enum sh_error e = shc_ask(c, &call, MSG_view_digest, &ask, MSG_view_digest_reply, &reply);
    if (e == SH_OK && !take_digest(&reply, out)) {
        sh_view_digest_free(out);
        e = malformed();
    }
    shc_call_free(&call);
    return e;
}

void sh_view_digest_free(struct sh_view_digest *digest)
{
    free(digest->kinds);
    sh_session_free(digest->applied);
    memset(digest, 0, sizeof *digest);
}
