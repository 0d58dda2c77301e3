/* The codec for messages.def. Bad bytes get an error; encoding a type that isn't declared is a broken
 * invariant. */
#include "messages.h"

#include <assert.h>
#include <string.h>

#define REQUIRED true
#define OPTIONAL false

/* One field table for each message; its last row only keeps a table without fields from being empty. */
#define MESSAGE(name, number, sender, receiver, prose) static const struct msg_field fields_of_##name[] = {
#define FIELD(message, kind, name, key, need, limit, prose)                                                  \
    {MSG_##kind, #name, key, need, limit, prose, offsetof(struct msg_##message, name)},
#define END_MESSAGE(name)                                                                                    \
    {                                                                                                        \
        0                                                                                                    \
    }                                                                                                        \
    }                                                                                                        \
    ;
#include "messages.def"
#undef MESSAGE
#undef FIELD
#undef END_MESSAGE

#define FIELD_COUNT(table) (sizeof(table) / sizeof((table)[0]) - 1)
static const struct msg_type types[] = {
#define MESSAGE(name, number, sender, receiver, prose)                                                       \
    {number,                                                                                                 \
     #name,                                                                                                  \
     sender,                                                                                                 \
     receiver,                                                                                               \
     prose,                                                                                                  \
     fields_of_##name,                                                                                       \
     FIELD_COUNT(fields_of_##name),                                                                          \
     sizeof(struct msg_##name)},
#define FIELD(message, kind, name, key, need, limit, prose)
#define END_MESSAGE(name)
#include "messages.def"
#undef MESSAGE
#undef FIELD
#undef END_MESSAGE
};

const struct msg_type *msg_types(size_t *count)
{
    *count = sizeof types / sizeof types[0];
    return types;
}

const struct msg_type *msg_type_of(uint32_t number)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].number == number)
            return &types[i];
    return NULL;
}

static bool open_session(struct mp *m, struct msg_envelope *out)
{
    uint32_t count;
    struct slice id;
    if (!mp_array(m, &count) || count != 3 || !mp_bin(m, &id) || id.len != sizeof out->session.bytes)
        return false;
    memcpy(out->session.bytes, id.data, id.len);
    return mp_uint(m, &out->number) && mp_uint(m, &out->previous);
}

static bool open_cluster(struct mp *m, struct msg_envelope *out)
{
    if (mp_nil(m))
        return true;
    return mp_bin(m, &out->cluster) && out->cluster.len == CLUSTER_ID_BYTES;
}

/* What another version's envelope says of its sender, as far as it can be read. */
static void open_foreign(struct mp m, struct msg_envelope *out)
{
    uint64_t type;
    if (!mp_uint(&m, &type) || type > UINT32_MAX || !mp_uint(&m, &out->correlation))
        return;
    out->type = (uint32_t)type;
    if (!open_cluster(&m, out)) {
        out->cluster = (struct slice){0};
        return;
    }
    if (!mp_str(&m, &out->sender) || out->sender.len > MSG_SENDER_MAX)
        out->sender = (struct slice){0};
    else if (!open_session(&m, out))
        out->session = (struct id16){{0}};
}

enum sh_error msg_open(struct slice message, struct msg_envelope *out)
{
    struct mp m = mp_of(message);
    uint32_t count;
    uint64_t version, type;
    *out = (struct msg_envelope){0};
    if (!mp_array(&m, &count) || count < 1 || !mp_uint(&m, &version))
        return SH_BAD_REQUEST;
    if (version != MSG_VERSION) {
        open_foreign(m, out);
        return SH_VERSION_MISMATCH;
    }
    if (count != 7 || !mp_uint(&m, &type) || type > UINT32_MAX || !mp_uint(&m, &out->correlation))
        return SH_BAD_REQUEST;
    out->type = (uint32_t)type;
    if (!open_cluster(&m, out) || !mp_str(&m, &out->sender) || out->sender.len > MSG_SENDER_MAX)
        return SH_BAD_REQUEST;
    if (!open_session(&m, out) || mp_peek(&m) != MP_MAP || !mp_raw(&m, &out->body) || !mp_at_end(&m))
        return SH_BAD_REQUEST;
    return SH_OK;
}

void msg_pack_envelope(struct buf *out, const struct msg_envelope *e)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, 7);
    msgpack_pack_uint64(&pk, MSG_VERSION);
    msgpack_pack_uint64(&pk, e->type);
    msgpack_pack_uint64(&pk, e->correlation);
    if (e->cluster.len == 0)
        msgpack_pack_nil(&pk);
    else
        mp_pack_bin(&pk, e->cluster);
    mp_pack_str(&pk, e->sender);
    msgpack_pack_array(&pk, 3);
    mp_pack_bin(&pk, slice_of(e->session.bytes, sizeof e->session.bytes));
    msgpack_pack_uint64(&pk, e->number);
    msgpack_pack_uint64(&pk, e->previous);
}

static enum sh_error decode_bytes(struct mp *m, const struct msg_field *f, struct slice *value)
{
    bool good = f->kind == MSG_str   ? mp_str(m, value)
                : f->kind == MSG_bin ? mp_bin(m, value)
                                     : mp_raw(m, value);
    if (!good)
        return SH_BAD_REQUEST;
    return value->len > f->limit ? SH_TOO_LARGE : SH_OK;
}

static enum sh_error decode_field(struct mp *m, const struct msg_field *f, void *value)
{
    struct slice id;
    uint64_t *number = value;
    switch (f->kind) {
    case MSG_uint:
        if (!mp_uint(m, number))
            return SH_BAD_REQUEST;
        return *number > f->limit ? SH_TOO_LARGE : SH_OK;
    case MSG_boolean:
        return mp_bool(m, value) ? SH_OK : SH_BAD_REQUEST;
    case MSG_id16:
        if (!mp_bin(m, &id) || id.len != sizeof(struct id16))
            return SH_BAD_REQUEST;
        memcpy(value, id.data, id.len);
        return SH_OK;
    case MSG_str:
    case MSG_bin:
    case MSG_raw:
        return decode_bytes(m, f, value);
    }
    return SH_BAD_REQUEST;
}

static const struct msg_field *field_of_key(const struct msg_type *t, uint64_t key, size_t *index)
{
    for (size_t i = 0; i < t->field_count; i++) {
        if (t->fields[i].key == key) {
            *index = i;
            return &t->fields[i];
        }
    }
    return NULL;
}

enum sh_error msg_decode(uint32_t type, struct slice body, void *out)
{
    const struct msg_type *t = msg_type_of(type);
    struct mp m = mp_of(body);
    uint32_t count, seen = 0;
    if (t == NULL || !mp_map(&m, &count))
        return SH_BAD_REQUEST;
    memset(out, 0, t->size);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t key;
        size_t index;
        if (!mp_uint(&m, &key))
            return SH_BAD_REQUEST;
        const struct msg_field *f = field_of_key(t, key, &index);
        if (f == NULL) {
            if (!mp_skip(&m))
                return SH_BAD_REQUEST;
            continue;
        }
        enum sh_error e = decode_field(&m, f, (char *)out + f->offset);
        if (e != SH_OK)
            return e;
        seen |= 1u << index;
    }
    for (size_t i = 0; i < t->field_count; i++)
        if (t->fields[i].required && (seen & 1u << i) == 0)
            return SH_BAD_REQUEST;
    return mp_at_end(&m) ? SH_OK : SH_BAD_REQUEST;
}

static bool is_absent(const struct msg_field *f, const void *value)
{
    if (f->required)
        return false;
    switch (f->kind) {
    case MSG_uint:
        return *(const uint64_t *)value == 0;
    case MSG_boolean:
        return !*(const bool *)value;
    case MSG_id16:
        return id16_is_zero(*(const struct id16 *)value);
    default:
        return ((const struct slice *)value)->len == 0;
    }
}

static void encode_field(msgpack_packer *pk, const struct msg_field *f, const void *value)
{
    msgpack_pack_uint64(pk, f->key);
    if (f->kind == MSG_uint)
        msgpack_pack_uint64(pk, *(const uint64_t *)value);
    else if (f->kind == MSG_boolean && *(const bool *)value)
        msgpack_pack_true(pk);
    else if (f->kind == MSG_boolean)
        msgpack_pack_false(pk);
    else if (f->kind == MSG_id16)
        mp_pack_bin(pk, slice_of(value, sizeof(struct id16)));
    else if (f->kind == MSG_str)
        mp_pack_str(pk, *(const struct slice *)value);
    else if (f->kind == MSG_bin)
        mp_pack_bin(pk, *(const struct slice *)value);
    else
        mp_pack_raw(pk, *(const struct slice *)value);
}

void msg_encode(uint32_t type, const void *in, struct buf *out)
{
    const struct msg_type *t = msg_type_of(type);
    assert(t != NULL);
    msgpack_packer pk;
    mp_packer(&pk, out);
    size_t present = 0;
    for (size_t i = 0; i < t->field_count; i++)
        present += !is_absent(&t->fields[i], (const char *)in + t->fields[i].offset);
    msgpack_pack_map(&pk, present);
    for (size_t i = 0; i < t->field_count; i++) {
        const void *value = (const char *)in + t->fields[i].offset;
        if (!is_absent(&t->fields[i], value))
            encode_field(&pk, &t->fields[i], value);
    }
}

void msg_encode_head(uint32_t type, const void *in, uint8_t key, struct buf *out)
{
    const struct msg_type *t = msg_type_of(type);
    const struct slice *last = NULL;
    size_t present = 1;
    msgpack_packer pk;
    assert(t != NULL);
    mp_packer(&pk, out);
    for (size_t i = 0; i < t->field_count; i++) {
        const void *value = (const char *)in + t->fields[i].offset;
        if (t->fields[i].key == key)
            last = value;
        else
            present += !is_absent(&t->fields[i], value);
    }
    assert(last != NULL);
    msgpack_pack_map(&pk, present);
    for (size_t i = 0; i < t->field_count; i++) {
        const void *value = (const char *)in + t->fields[i].offset;
        if (t->fields[i].key != key && !is_absent(&t->fields[i], value))
            encode_field(&pk, &t->fields[i], value);
    }
    msgpack_pack_uint64(&pk, key);
    msgpack_pack_bin(&pk, last->len);
}

static void document_limit(struct buf *out, const struct msg_field *f)
{
    bool bytes = f->kind == MSG_str || f->kind == MSG_bin || f->kind == MSG_raw;
    if (f->kind == MSG_id16)
        buf_append_str(out, "16 bytes");
    else if (f->kind == MSG_boolean || f->limit == UINT64_MAX)
        buf_append_str(out, "");
    else if (bytes && f->limit == UINT32_MAX)
        buf_append_str(out, "the link's message size");
    else
        buf_printf(out, "%llu%s", (unsigned long long)f->limit, bytes ? " bytes" : "");
}

static void document_message(struct buf *out, const struct msg_type *t)
{
    static const char *const kinds[] = {"uint", "bool", "str", "bin", "bin", "any"};
    buf_printf(out, "\n### %u `%s`\n\n%s\n\nFrom: %s. To: %s.\n", t->number, t->name, t->prose, t->sender,
               t->receiver);
    if (t->field_count == 0) {
        buf_append_str(out, "\nNo fields: an empty map.\n");
        return;
    }
    buf_append_str(out, "\n| key | field | kind | needed | limit | meaning |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < t->field_count; i++) {
        const struct msg_field *f = &t->fields[i];
        buf_printf(out, "| %u | `%s` | %s | %s | ", f->key, f->name, kinds[f->kind],
                   f->required ? "yes" : "no");
        document_limit(out, f);
        buf_printf(out, " | %s |\n", f->prose);
    }
}

void msg_document(struct buf *out)
{
    buf_printf(
        out,
        "# Messages\n\n"
        "Generated from `common/messages.def` by `script/docs`; a test compares the two.\n\n"
        "Every message is a msgpack array: `[version, type, correlation id, cluster id, sender, session, "
        "body]`.\n\n"
        "| part | kind | meaning |\n|---|---|---|\n"
        "| version | uint | %d; a message of another version is refused. The first five parts, and the "
        "session's id, "
        "have these places in all versions |\n"
        "| type | uint | number of the message, below |\n"
        "| correlation id | uint | follows a request through all daemons; 0 for none |\n"
        "| cluster id | bin, %d bytes, or nil | hash of the cluster's name and groups; nil from a client "
        "that doesn't know it yet |\n"
        "| sender | str, at most %d bytes | node id of a daemon, empty for a client |\n"
        "| session | array [bin of 16 bytes, number, previous] | session of the link, the request's number "
        "in it, and the highest lower number that was unanswered when it was sent; see "
        "`docs/architecture.md` |\n"
        "| body | map | keys are small integers; unknown ones are skipped, none is used again |\n\n"
        "Nesting is at most %d deep; a count is never larger than the bytes that are left.\n\n"
        "## Messages\n",
        MSG_VERSION, CLUSTER_ID_BYTES, MSG_SENDER_MAX, MP_MAX_DEPTH);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        document_message(out, &types[i]);
    buf_append_str(out, "\n## Errors\n\n| code | name | meaning |\n|---|---|---|\n");
#define DOCUMENT_ERROR(symbol, value, name, text) buf_printf(out, "| %d | `%s` | %s |\n", value, name, text);
    SH_ERRORS(DOCUMENT_ERROR)
#undef DOCUMENT_ERROR
}
