/* Members: what a node knows of another, and which of two records of one member holds
 * (docs/cluster-protocol.md). Pure. */
#ifndef MEMBER_H
#define MEMBER_H

#include "config.h"

enum {
    MEMBER_LIVE_MAX = 1024,         /* members that have not left */
    MEMBER_RECORDS_MAX = 2048,      /* those that left included: beyond, a new id is refused with too_large */
    MEMBER_WATERMARKS_MAX = 65,     /* kept of one member: its own log and as many copies as walsvc keeps */
    MEMBER_EVENTS_MAX = 1024,       /* kept */
    MEMBER_MESSAGE_MAX = 512 << 10, /* RECVMAXSZ of port + 2 */
    MEMBER_TEXT_MAX = 512,
    MEMBER_HOST_MAX = 255
};

/* Values are part of the wire format. */
enum member_status {
    MEMBER_JOINING,
    MEMBER_UP,
    MEMBER_SUSPECT,
    MEMBER_DOWN,
    MEMBER_MUST_REJOIN,
    MEMBER_LEFT
};
/* "joining", "up", ... */
const char *member_status_name(enum member_status status);

/* See `member` in messages.def. */
struct member_record {
    char id[CONFIG_ID_MAX + 1], group[CONFIG_ID_MAX + 1];
    char host[MEMBER_HOST_MAX + 1];
    uint16_t port, admin_port;
    enum member_status status;
    uint64_t generation, incarnation, born_ms, since_ms;
    struct id16 log, boot, not_log;
};

/* Which of two records of the same id holds: > 0 when a does, < 0 when b does, 0 when they are the same. A
 * total order, so that members who have seen the same records, in whatever order, have the same view:
 *   1. the higher generation
 *   2. one that has left, over one that has not
 *   3. one that is bound to an identity (log), over one that is not; of two identities the older (born_ms),
 * then the smaller uuid
 *   4. the higher incarnation
 *   5. the higher status
 *   6. the rest only so that there is an order: boot, the earlier since_ms, address, group, not_log */
int member_compare(const struct member_record *a, const struct member_record *b);
/* Of all fields; the same on every machine. */
uint64_t member_hash(const struct member_record *record);
/* SH_BAD_REQUEST or SH_TOO_LARGE: not a valid record: an empty or malformed id, group or host, port 0, a
 * status beyond the list, a bound one without incarnation. */
enum sh_error member_decode(struct slice bytes, struct member_record *out);
/* Appends one msgpack map. */
void member_encode(const struct member_record *record, struct buf *out);

/* Copies a text with a NUL behind it; false when it doesn't fit or holds a NUL itself. */
bool member_text(char *out, size_t size, struct slice text);

struct member_watermark {
    struct id16 log;
    uint64_t lsn, end;
};

/* Values are part of the wire format: see `event` in messages.def. */
enum member_event_kind {
    MEMBER_EVENT_JOINING = 1,
    MEMBER_EVENT_UP,
    MEMBER_EVENT_SUSPECT,
    MEMBER_EVENT_DOWN,
    MEMBER_EVENT_MUST_REJOIN,
    MEMBER_EVENT_LEFT,
    MEMBER_EVENT_RESTARTED,
    MEMBER_EVENT_MOVED,
    MEMBER_EVENT_REPLACED,
    MEMBER_EVENT_UNREACHABLE,
    MEMBER_EVENT_REACHABLE,
    MEMBER_EVENT_CLOCK_DRIFT,
    MEMBER_EVENT_CLOCK_GOOD,
    MEMBER_EVENT_FOUNDED,
    MEMBER_EVENT_REFUSED,
    MEMBER_EVENT_ALARM
};

struct member_event {
    uint64_t number; /* within the series */
    enum member_event_kind kind;
    uint64_t wall_ms, generation, incarnation;
    char id[CONFIG_ID_MAX + 1], text[256];
};

#endif
