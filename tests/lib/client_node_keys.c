/* What the node answers about keys: the value of k is "value of k", but nothing for those that begin with
 * "no"; and to watches: entry n of its log puts key "k<n>", but for every third, which is of another prefix.
 */
#include "client_node.h"

#include <stdio.h>
#include <string.h>

enum { HELD_GETS = 64, CHANGES_AT_ONCE = 4 };

/* The node's process's own. */
static struct {
    struct link_token token;
    struct buf body;
} held[HELD_GETS];
static size_t held_count;
static struct link_token watching; /* a watch that waits... */
static uint64_t watching_from;     /* ...behind this LSN; UINT64_MAX: none does */

/* ---------------------------------------------------------------- gets */

static void pack_row(const struct node *n, msgpack_packer *pk, struct slice key)
{
    char value[80];
    if (key.len >= 2 && memcmp(key.data, "no", 2) == 0) {
        msgpack_pack_nil(pk);
        return;
    }
    snprintf(value, sizeof value, "value of %.*s", (int)key.len, (const char *)key.data);
    msgpack_pack_array(pk, n->odd ? 6 : 7);
    mp_pack_bin(pk, key);
    mp_pack_bin(pk, slice_str(value));
    msgpack_pack_uint64(pk, 3);
    mp_pack_bin(pk, slice_of(n->log.bytes, sizeof n->log.bytes));
    msgpack_pack_uint64(pk, 2);
    msgpack_pack_uint64(pk, 0);
    if (!n->odd)
        msgpack_pack_nil(pk);
}

static void answer_get(struct node *n, struct link_token token, struct slice body)
{
    struct msg_kv_get m;
    struct buf rows = {0};
    msgpack_packer pk;
    struct slice key;
    uint32_t count = 0;
    msg_decode(MSG_kv_get, body, &m);
    struct mp keys = mp_of(m.keys);
    mp_array(&keys, &count);
    n->gets++;
    n->keys_asked += count;
    if (n->rows_most > 0 && count > n->rows_most)
        count = n->rows_most;
    mp_packer(&pk, &rows);
    msgpack_pack_array(&pk, count);
    for (uint32_t i = 0; i < count && mp_bin(&keys, &key); i++)
        pack_row(n, &pk, key);
    const struct msg_kv_get_reply reply = {.rows = buf_slice(&rows)};
    node_answer(token, MSG_kv_get_reply, &reply);
    buf_free(&rows);
}

static void on_get(struct node *n, const struct link_request *request)
{
    if (!n->hold || held_count == HELD_GETS) {
        answer_get(n, request->token, request->body);
        return;
    }
    held[held_count].token = request->token;
    held[held_count].body.len = 0;
    buf_append(&held[held_count++].body, request->body.data, request->body.len);
    n->gets_held++;
}

/* ---------------------------------------------------------------- watches */

static void pack_vector(const struct node *n, uint64_t lsn, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, 1);
    msgpack_pack_array(&pk, 2);
    mp_pack_bin(&pk, slice_of(n->log.bytes, sizeof n->log.bytes));
    msgpack_pack_uint64(&pk, lsn);
}

static void pack_change(const struct node *n, msgpack_packer *pk, uint64_t lsn)
{
    char key[24];
    snprintf(key, sizeof key, "k%llu", (unsigned long long)lsn);
    msgpack_pack_array(pk, 7);
    mp_pack_bin(pk, slice_of(n->log.bytes, sizeof n->log.bytes));
    msgpack_pack_uint64(pk, lsn);
    msgpack_pack_uint64(pk, 100 + lsn);
    msgpack_pack_uint64(pk, n->odd ? 9 : ENTRY_PUT);
    mp_pack_bin(pk, slice_str(key));
    mp_pack_bin(pk, slice_str("v"));
    msgpack_pack_uint64(pk, 0);
}

static void tell_missing(struct node *n, struct link_token token)
{
    struct buf position = {0}, missing = {0};
    msgpack_packer pk;
    pack_vector(n, n->watch_first - 1, &position);
    mp_packer(&pk, &missing);
    msgpack_pack_array(&pk, 4);
    mp_pack_bin(&pk, slice_of(n->log.bytes, sizeof n->log.bytes));
    msgpack_pack_uint64(&pk, 1);
    msgpack_pack_uint64(&pk, n->watch_first - 1);
    msgpack_pack_uint64(&pk, SH_TRIMMED);
    static const uint8_t none[] = {0x90};
    const struct msg_watch_reply reply = {.changes = slice_of(none, sizeof none),
                                          .position = buf_slice(&position),
                                          .missing = buf_slice(&missing)};
    node_answer(token, MSG_watch_reply, &reply);
    buf_free(&position);
    buf_free(&missing);
}

static void answer_watch(struct node *n, struct link_token token, uint64_t from)
{
    struct buf changes = {0}, all = {0}, position = {0};
    msgpack_packer pk;
    uint32_t count = 0;
    uint64_t last = from + CHANGES_AT_ONCE < n->watch_last ? from + CHANGES_AT_ONCE : n->watch_last;
    mp_packer(&pk, &changes);
    for (uint64_t lsn = from + 1; lsn <= last; lsn++) {
        if (lsn % 3 == 0)
            continue;
        pack_change(n, &pk, lsn);
        count++;
    }
    mp_packer(&pk, &all);
    msgpack_pack_array(&pk, count);
    buf_append(&all, changes.data, changes.len);
    pack_vector(n, last > from ? last : from, &position);
    const struct msg_watch_reply reply = {.changes = buf_slice(&all), .position = buf_slice(&position)};
    node_answer(token, MSG_watch_reply, &reply);
    buf_free(&changes);
    buf_free(&all);
    buf_free(&position);
}

/* Of a vector of one log at most. */
static uint64_t lsn_of(struct slice from)
{
    struct mp m = mp_of(from);
    struct slice log;
    uint32_t count = 0, parts;
    uint64_t lsn = 0;
    if (mp_array(&m, &count) && count > 0 && mp_array(&m, &parts) && mp_bin(&m, &log))
        mp_uint(&m, &lsn);
    return lsn;
}

static void on_watch(struct node *n, const struct link_request *request)
{
    struct msg_watch m;
    msg_decode(MSG_watch, request->body, &m);
    n->watches++;
    uint64_t from = lsn_of(m.from);
    if (m.from.len == 0) {
        uint64_t now = n->watch_last;
        answer_watch(n, request->token, now);
    } else if (from + 1 < n->watch_first) {
        tell_missing(n, request->token);
    } else if (from < n->watch_last) {
        answer_watch(n, request->token, from);
    } else {
        watching = request->token;
        watching_from = from;
    }
}

/* ---------------------------------------------------------------- both */

bool node_on_keys(struct node *n, const struct link_request *request)
{
    if (n->keys_refuse != SH_OK && (request->type == MSG_kv_get || request->type == MSG_watch))
        node_refuse(request->token, n->keys_refuse, 0);
    else if (request->type == MSG_kv_get)
        on_get(n, request);
    else if (request->type == MSG_watch)
        on_watch(n, request);
    else
        return false;
    return true;
}

void node_answer_keys(struct node *n)
{
    for (size_t i = 0; i < held_count && !n->hold; i++)
        answer_get(n, held[i].token, buf_slice(&held[i].body));
    held_count = n->hold ? held_count : 0;
    if (watching_from != 0 && watching_from != UINT64_MAX && watching_from < n->watch_last) {
        answer_watch(n, watching, watching_from);
        watching_from = UINT64_MAX;
    }
}
