/* The envelope and the messages: [version, type, correlation id, cluster id, sender, session, body].
 *
 * version      uint, the major version (MSG_VERSION); another one is refused
 * type         uint, see messages.def
 * correlation  uint, 0 for none: follows a request through all daemons and nodes
 * cluster id   bin of 8 bytes, or nil from a client that doesn't know it yet
 * sender       str, node id of a daemon, or empty for a client
 * session      array [id (bin of 16 bytes), number, previous]: see link.h; numbers are 0 outside a link
 * body         map of small integer keys; unknown keys are skipped
 *
 * Decoding allocates nothing: slices point into the message and live as long as it. */
#ifndef COMMON_MESSAGES_H
#define COMMON_MESSAGES_H

#include "clock.h"
#include "mp.h"
#include "shanghai_error.h"

enum { MSG_VERSION = 1, MSG_SENDER_MAX = 64, CLUSTER_ID_BYTES = 8, MSG_ENVELOPE_MAX = 160 };

/* enum msg_number { MSG_POLL = 1, ... } is spelt MSG_poll here: the names come from messages.def. */
enum msg_number {
#define MESSAGE(name, number, sender, receiver, prose) MSG_##name = number,
#define FIELD(message, kind, name, key, need, limit, prose)
#define END_MESSAGE(name)
#include "messages.def"
#undef MESSAGE
#undef FIELD
#undef END_MESSAGE
};

typedef uint64_t msg_kind_uint;
typedef bool msg_kind_boolean;
typedef struct slice msg_kind_str;
typedef struct slice msg_kind_bin;
typedef struct id16 msg_kind_id16;
typedef struct slice msg_kind_raw;

/* struct msg_append { ... }: one for each message; `none` only keeps those without fields from being empty.
 */
#define MESSAGE(name, number, sender, receiver, prose)                                                       \
    struct msg_##name {                                                                                      \
        bool none;
#define FIELD(message, kind, name, key, need, limit, prose) msg_kind_##kind name;
#define END_MESSAGE(name)                                                                                    \
    }                                                                                                        \
    ;
#include "messages.def"
#undef MESSAGE
#undef FIELD
#undef END_MESSAGE

enum msg_field_kind { MSG_uint, MSG_boolean, MSG_str, MSG_bin, MSG_id16, MSG_raw };

struct msg_field {
    enum msg_field_kind kind;
    const char *name;
    uint8_t key;
    bool required;
    uint64_t limit;
    const char *prose;
    size_t offset;
};

struct msg_type {
    uint32_t number;
    const char *name, *sender, *receiver, *prose;
    const struct msg_field *fields;
    size_t field_count, size;
};

/* All messages in the order of messages.def; *count of them. */
const struct msg_type *msg_types(size_t *count);
/* NULL when the number is unknown. */
const struct msg_type *msg_type_of(uint32_t number);

struct msg_envelope {
    uint32_t type;
    uint64_t correlation;
    struct slice cluster; /* CLUSTER_ID_BYTES, or empty for nil */
    struct slice sender;
    struct id16 session;
    uint64_t number, previous;
    struct slice body; /* one whole msgpack map, checked to be well-formed */
};

/* SH_OK, SH_VERSION_MISMATCH (another major version), SH_BAD_REQUEST.
 * With SH_VERSION_MISMATCH type, correlation, cluster, sender and the session's id are filled in as far as
 * they have the places of this version, to name who is refused; what can't be read is zero or empty. */
enum sh_error msg_open(struct slice message, struct msg_envelope *out);
/* Appends everything but the body, which the caller appends right behind. */
void msg_pack_envelope(struct buf *out, const struct msg_envelope *e);

/* Decodes a body of the type into its struct (out is zeroed first).
 * SH_BAD_REQUEST: malformed, wrong kind, a required field absent. SH_TOO_LARGE: beyond a declared limit. */
enum sh_error msg_decode(uint32_t type, struct slice body, void *out);
/* Appends the body's map; optional fields that are zero, false or empty are left out. */
void msg_encode(uint32_t type, const void *in, struct buf *out);

/* The same, but for the bytes of the bin field with that key: they come last, and follow behind what is
 * appended here. */
void msg_encode_head(uint32_t type, const void *in, uint8_t key, struct buf *out);

/* The document docs/messages.md, from the tables. */
void msg_document(struct buf *out);

#endif
