/* membersvc's core: who is in the cluster and who is alive (docs/cluster-protocol.md).
 *
 * Pure: no file, clock, thread, socket, log, randomness but its seed's. Time and whole messages come in;
 * messages to send, notices for the log and state to keep come out, and are taken by the caller after each
 * call, in this order: notices, then sends; the state whenever it suits, but before an operation or an event
 * is shown to anybody. A thousand cores run in one process under a virtual clock (tests/sim/member_*). */
#ifndef MEMBER_CORE_H
#define MEMBER_CORE_H

#include "member.h"

/* Both clocks, as they are at the call. */
struct member_time {
    int64_t mono_ns; /* for all that lasts; never goes back */
    int64_t wall_ms; /* for people, and for drift; may jump */
};

struct member_timing {
    int64_t heartbeat_ns, suspect_ns, down_ns; /* settings member.* */
    uint64_t drift_ms;
};

struct member_options {
    const char *cluster_name;
    uint8_t cluster[CLUSTER_ID_BYTES];
    const struct config_node *self;  /* from the topology file: id, address, group */
    const struct config_node *nodes; /* of the topology file, self included: the first members, then seeds */
    size_t node_count;
    struct id16 log, boot; /* uuid of the own log; of this process */
    struct member_timing timing;
    uint64_t seed; /* of its random choices */
};

struct member_core;

/* saved: the body that member_core_save wrote, or empty for none. Options and saved are copied.
 * SH_CORRUPT: saved cannot be read. SH_CONFLICT: it belongs to another cluster or node, or to another log of
 * this node
 * (*text says which). Both: nothing is opened. */
enum sh_error member_core_open(const struct member_options *options, struct member_time now,
                               struct slice saved, char text[MEMBER_TEXT_MAX], struct member_core **out);
void member_core_close(struct member_core *core);
/* The settings changed. */
void member_core_set_timing(struct member_core *core, struct member_time now,
                            const struct member_timing *timing);

/* One whole message as it came, of whatever origin. */
void member_core_receive(struct member_core *core, struct member_time now, struct slice message);
/* What is due at `now`. Late calls are noticed: then it doubts itself before it accuses others. */
void member_core_tick(struct member_core *core, struct member_time now);
/* When the next tick is due, CLOCK_MONOTONIC. */
int64_t member_core_due_ns(const struct member_core *core);
/* A log that this node holds is durable so far. */
void member_core_watermark(struct member_core *core, struct member_time now,
                           const struct member_watermark *mark);

/* These are all logs that it holds: the watermarks of others go. */
void member_core_holdings(struct member_core *core, struct member_time now, const struct id16 *logs,
                          size_t count);

/* node join and node leave. On an error *text says why in a sentence; see the messages for the errors.
 * Done: *generation of the id. */
enum sh_error member_core_join(struct member_core *core, struct member_time now,
                               const struct msg_node_join *join, uint64_t *generation,
                               char text[MEMBER_TEXT_MAX]);
enum sh_error member_core_leave(struct member_core *core, struct member_time now, const char *id,
                                struct msg_node_leave_reply *reply, char text[MEMBER_TEXT_MAX]);

/* ---- what comes out ---- */

struct member_send {
    const char *id, *host; /* id: "" for a seed whose id is not known */
    uint16_t port;         /* membership's: the base port + 2 */
    struct slice message;
    bool fresh; /* nothing has come from there for suspect_after: a connection that is older than a heartbeat
                   interval may be dead without knowing, so use a new one */
};
/* Takes the oldest one; its bytes live until the next call that may send. The queue is bounded (1 MiB, or one
 * message): beyond, the oldest are dropped, as a network would. */
bool member_core_next_send(struct member_core *core, struct member_send *out);

struct member_notice {
    int level;        /* enum log_level */
    const char *text; /* a sentence, without the id */
    char id[CONFIG_ID_MAX + 1];
    char detail[MEMBER_TEXT_MAX];
};
/* For the log: changes of members, refusals (each kind and sender once a minute at most), self-doubt. */
bool member_core_next_notice(struct member_core *core, struct member_notice *out);

/* Counts on with each change of what member_core_save writes. */
uint64_t member_core_version(const struct member_core *core);
void member_core_save(const struct member_core *core, struct buf *out);

/* ---- questions ---- */

/* Values are part of the wire format: nodes_reply.state. */
enum member_state { MEMBER_FOUNDING, MEMBER_MEMBER, MEMBER_HAS_LEFT, MEMBER_REPLACED, MEMBER_REFUSED };

struct member_self {
    enum member_state state;
    const char *text; /* what to do about the state; "" when all is well */
    /* Of the own log, in state MEMBER_HAS_LEFT or MEMBER_REPLACED: what no member is known to hold; 0: none.
     */
    uint64_t only_first, only_last;
};
struct member_self member_core_self(const struct member_core *core);

/* One member, as node_info tells of it. */
struct member_view {
    const struct member_record *record; /* until the next call for a view; with the status that is shown */
    bool self, observed, unreachable, drifting;
    int64_t heard_ns; /* age of the last direct sign of life; -1: none yet */
    int64_t ahead_ms; /* of its clock against ours */
    const struct member_watermark *watermarks;
    size_t watermark_count;
};
/* Ordered by id, those that left included. */
size_t member_core_count(const struct member_core *core);
void member_core_view(const struct member_core *core, struct member_time now, size_t index,
                      struct member_view *out);
/* Over all records: equal on two nodes when their views are. */
uint64_t member_core_hash(const struct member_core *core);

/* Events: numbers first..next-1 are kept. */
struct member_events {
    struct id16 series;
    uint64_t first, next;
};
struct member_events member_core_events(const struct member_core *core);
/* NULL: not kept. Lives until the next call of this. */
const struct member_event *member_core_event(const struct member_core *core, uint64_t number);

/* Another daemon of this node has something that somebody has to know, about that member: an event.
 * SH_NOT_MEMBER: there is no such member. */
enum sh_error member_core_alarm(struct member_core *core, struct member_time now, struct slice id,
                                struct slice text);

/* Since the core was opened; each has its name in nodes_reply.counters. */
#define MEMBER_COUNTERS(X)                                                                                   \
    X(sent)                                                                                                  \
    X(sent_bytes)                                                                                            \
    X(received)                                                                                              \
    X(received_bytes)                                                                                        \
    X(dropped)       /* messages to send, beyond the queue's bound */                                        \
    X(malformed)     /* not a message of ours */                                                             \
    X(other_version) /* of another major version */                                                          \
    X(other_cluster)                                                                                         \
    X(not_member)     /* from who isn't a member, or has left */                                             \
    X(other_identity) /* from another identity with a member's id */                                         \
    X(stale)          /* from an earlier boot of a member, or from an older generation */                    \
    X(clock_drift)    /* taken as a sign of life only */                                                     \
    X(unknown_member) /* records of an id that was never joined to this cluster */                           \
    X(refusals)       /* messages of ours that others refused */                                             \
    X(probes)                                                                                                \
    X(suspicions) /* made public by this node */                                                             \
    X(downs)      /* declared by this node */                                                                \
    X(refutations)                                                                                           \
    X(doubts) /* own timers fired late */

struct member_counters {
#define MEMBER_COUNTER(name) uint64_t name;
    MEMBER_COUNTERS(MEMBER_COUNTER)
#undef MEMBER_COUNTER
};
const struct member_counters *member_core_counters(const struct member_core *core);

#endif
