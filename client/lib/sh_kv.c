/* Keys: gets and scans. Nothing here is fatal. */
#include "sh_internal.h"

#include <stdlib.h>
#include <string.h>

enum { KEYS_MAX = 1000, SCAN_ROWS = 1000, SCAN_ROWS_MAX = 10000, ROW_PARTS = 7 };

static enum sh_error malformed(void)
{
    shc_detail("malformed answer");
    return SH_INTERNAL;
}

/* Who was told of another group has been told of all of them, or is about to be. */
#define HELLO_NS NS_PER_S

/* The node gives up before the call does, since it can say how far it is. */
/* What is left for the way there and back: a tenth, and ANSWER_MS of a short time. */
enum { ANSWER_MS = 200, WAIT_MS_MAX = 60000 };

uint64_t shc_wait_ms(const struct sh_client *c)
{
    uint64_t all = c->options.timeout_ms, rest = all / 10;
    if (rest < ANSWER_MS)
        rest = all / 2 < ANSWER_MS ? all / 2 : ANSWER_MS;
    return all - rest < WAIT_MS_MAX ? all - rest : WAIT_MS_MAX;
}

/* ---------------------------------------------------------------- rows */

static void *copy_of(struct slice bytes)
{
    uint8_t *copy = xmalloc(bytes.len + 1); /* with a NUL, so that it can be printed */
    if (bytes.len > 0)
        memcpy(copy, bytes.data, bytes.len);
    copy[bytes.len] = 0;
    return copy;
}

static bool decode_value(struct mp *m, struct sh_row *row)
{
    struct slice value;
    if (mp_nil(m))
        return true;
    if (!mp_bin(m, &value))
        return false;
    row->has_value = true;
    row->value = (void *)(uintptr_t)value.data;
    row->value_bytes = value.len;
    return true;
}

static bool decode_counter(struct mp *m, struct sh_row *row)
{
    if (mp_nil(m))
        return true;
    row->has_counter = mp_int(m, &row->counter);
    return row->has_counter;
}

/* Of keys that were asked for the answer is nil when there is nothing. Points into the answer. */
static bool decode_row(struct mp *m, struct sh_row *row)
{
    struct slice key, log;
    uint32_t parts;
    uint64_t expires;
    memset(row, 0, sizeof *row);
    if (mp_nil(m))
        return true;
    if (!mp_array(m, &parts) || parts != ROW_PARTS || !mp_bin(m, &key) || !decode_value(m, row) ||
        !mp_uint(m, &row->version.hlc) || !mp_bin(m, &log) || log.len != sizeof row->version.log ||
        !mp_uint(m, &row->version.lsn) || !mp_uint(m, &expires) || !decode_counter(m, row))
        return false;
    memcpy(row->version.log, log.data, log.len);
    row->expires_ms = (int64_t)expires;
    row->key = (void *)(uintptr_t)key.data;
    row->key_bytes = key.len;
    return true;
}

bool shc_row_next(struct mp *m, struct slice key, struct sh_row *row)
{
    if (!decode_row(m, row))
        return false;
    row->key = (void *)(uintptr_t)key.data;
    row->key_bytes = key.len;
    return true;
}

/* So that it outlives the answer. */
static void keep_row(struct sh_row *row)
{
    if (row->key != NULL)
        row->key = copy_of(slice_of(row->key, row->key_bytes));
    if (row->has_value)
        row->value = copy_of(slice_of(row->value, row->value_bytes));
}

/* Adds the rows of an answer, `most` at most. */
static bool add_rows(struct sh_rows *out, struct slice list, size_t most)
{
    struct mp m = mp_of(list);
    uint32_t count;
    if (!mp_array(&m, &count) || count > most)
        return false;
    out->rows = xrealloc(out->rows, (out->count + count + 1) * sizeof *out->rows);
    for (uint32_t i = 0; i < count; i++) {
        if (!decode_row(&m, &out->rows[out->count]))
            return false;
        keep_row(&out->rows[out->count++]);
    }
    return true;
}

void sh_rows_free(struct sh_rows *rows)
{
    for (size_t i = 0; i < rows->count; i++) {
        free(rows->rows[i].key);
        free(rows->rows[i].value);
    }
    free(rows->rows);
    free(rows->last);
    memset(rows, 0, sizeof *rows);
}

/* ---------------------------------------------------------------- gets */

static void pack_keys(const struct sh_key *keys, size_t count, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++)
        mp_pack_bin(&pk, slice_of(keys[i].bytes, keys[i].len));
}

/* One answer, which may be of the first keys only. */
static enum sh_error get_some(struct sh_client *c, struct sh_session *session, const struct sh_key *keys,
                              size_t count, struct sh_rows *rows)
{
    struct shc_call call = {0};
    struct buf packed = {0}, token = {0};
    struct msg_kv_get_reply reply;
    size_t before = rows->count;
    pack_keys(keys, count, &packed);
    shc_session_pack(session, &token);
    const struct msg_kv_get ask = {
        .keys = buf_slice(&packed), .after = buf_slice(&token), .wait_ms = shc_wait_ms(c)};
    enum sh_error e = shc_ask(c, &call, MSG_kv_get, &ask, MSG_kv_get_reply, &reply);
    if (e == SH_OK && (!add_rows(rows, reply.rows, count) || rows->count == before ||
                       !shc_session_see(session, reply.applied)))
        e = malformed();
    if (e == SH_OK)
        shc_session_see_hlc(session, reply.hlc);
    shc_call_free(&call);
    buf_free(&packed);
    buf_free(&token);
    return e;
}

static enum sh_error get_all(struct sh_client *c, struct sh_session *session, const struct sh_key *keys,
                             size_t count, struct sh_rows *rows)
{
    enum sh_error e = SH_OK;
    while (e == SH_OK && rows->count < count)
        e = get_some(c, session, keys + rows->count, count - rows->count, rows);
    return e;
}

static struct sh_client *holder_of(struct sh_client *c, const struct sh_key *key)
{
    return shc_client_for(c, GROUP_KEY, slice_of(key->bytes, key->len));
}

/* Those keys that one client's nodes hold, the first of which is keys[first]; their rows go where they
 * belong. */
static enum sh_error get_of_group(struct sh_client *c, struct sh_session *session, const struct sh_key *keys,
                                  size_t count, size_t first, bool *got, struct sh_rows *rows)
{
    struct sh_client *holder = holder_of(c, &keys[first]);
    struct sh_key *some = xcalloc(count - first, sizeof *some);
    size_t *places = xcalloc(count - first, sizeof *places), chosen = 0;
    struct sh_rows found = {0};
    for (size_t i = first; i < count; i++) {
        if (holder_of(c, &keys[i]) != holder)
            continue;
        places[chosen] = i;
        some[chosen++] = keys[i];
    }
    enum sh_error e = get_all(holder, session, some, chosen, &found);
    for (size_t i = 0; e == SH_OK && i < chosen; i++) {
        rows->rows[places[i]] = found.rows[i];
        found.rows[i] = (struct sh_row){0};
        got[places[i]] = true;
    }
    sh_rows_free(&found);
    free(some);
    free(places);
    return e;
}

static enum sh_error get_by_group(struct sh_client *c, struct sh_session *session, const struct sh_key *keys,
                                  size_t count, struct sh_rows *rows)
{
    bool got[KEYS_MAX] = {false};
    enum sh_error e = SH_OK;
    sh_rows_free(rows);
    rows->rows = xcalloc(count + 1, sizeof *rows->rows);
    rows->count = count;
    for (size_t i = 0; i < count && e == SH_OK; i++)
        if (!got[i])
            e = get_of_group(c, session, keys, count, i, got, rows);
    return e;
}

enum sh_error sh_kv_get(struct sh_client *c, struct sh_session *session, const struct sh_key *keys,
                        size_t count, struct sh_rows *rows)
{
    memset(rows, 0, sizeof *rows);
    if (count == 0 || count > KEYS_MAX) {
        shc_detail("1 to 1,000 keys can be asked for at once");
        return SH_BAD_REQUEST;
    }
    bool several = shc_groups_are_several(c, 0);
    enum sh_error e = several ? SH_WRONG_GROUP : get_all(c, session, keys, count, rows);
    if (e == SH_WRONG_GROUP && (several || shc_groups_are_several(c, clock_mono_ns() + HELLO_NS)))
        e = get_by_group(c, session, keys, count, rows);
    for (size_t i = 0; e == SH_OK && i < count; i++) {
        if (rows->rows[i].key != NULL)
            continue;
        rows->rows[i].key = copy_of(slice_of(keys[i].bytes, keys[i].len));
        rows->rows[i].key_bytes = keys[i].len;
    }
    if (e != SH_OK)
        sh_rows_free(rows);
    return e;
}

/* ---------------------------------------------------------------- scans */

static bool take_scan(const struct msg_kv_scan_reply *reply, size_t most, struct sh_rows *rows)
{
    rows->more = reply->more;
    rows->last = reply->last.len > 0 ? copy_of(reply->last) : NULL;
    rows->last_bytes = reply->last.len;
    if (!add_rows(rows, reply->rows, most) || (rows->more && rows->last == NULL))
        return false;
    for (size_t i = 0; i < rows->count; i++)
        if (rows->rows[i].key == NULL)
            return false;
    return true;
}

enum sh_error sh_kv_scan(struct sh_client *c, struct sh_session *session, const struct sh_scan_options *o,
                         struct sh_rows *rows)
{
    struct shc_call call = {0};
    struct buf token = {0};
    struct msg_kv_scan_reply reply;
    uint32_t most = o->most > 0 ? o->most : SCAN_ROWS;
    memset(rows, 0, sizeof *rows);
    if (o->prefix_bytes > KEY_MAX || o->behind_bytes > KEY_MAX || most > SCAN_ROWS_MAX) {
        shc_detail("a key has at most 4,096 bytes, an answer at most 10,000 rows");
        return SH_TOO_LARGE;
    }
    shc_session_pack(session, &token);
    const struct msg_kv_scan ask = {
        .prefix = slice_of(o->prefix, o->prefix_bytes),
        .behind = slice_of(o->behind, o->behind_bytes),
        .most = most,
        .keys_only = o->keys_only,
        .after = buf_slice(&token),
        .wait_ms = shc_wait_ms(c),
    };
    enum sh_error e = shc_ask(c, &call, MSG_kv_scan, &ask, MSG_kv_scan_reply, &reply);
    if (e == SH_OK && (!take_scan(&reply, most, rows) || !shc_session_see(session, reply.applied)))
        e = malformed();
    if (e != SH_OK)
        sh_rows_free(rows);
    else
        shc_session_see_hlc(session, reply.hlc);
    shc_call_free(&call);
    buf_free(&token);
    return e;
}
