/* replsvc's core: which log is fetched from whom, who is served, how far the own log is replicated
 * (docs/replication-protocol.md).
 *
 * Pure: no file, clock, thread, socket, log. Time (CLOCK_MONOTONIC, ns), membership, walsvc's state and
 * messages come in; actions come out, and are taken by the caller after each call, in order. */
#ifndef REPL_CORE_H
#define REPL_CORE_H

#include "config.h"
#include "digest.h"
#include "given_up.h"
#include "held_log.h"
#include "log_reader_copy.h"

enum {
    REPL_MEMBERS_MAX = 32,                                   /* of the group, besides this node */
    REPL_LOGS_MAX = 65,                                      /* held or followed: as many as walsvc holds */
    REPL_WINDOW_BYTES = 8 << 20,                             /* fetched of one log and not durable here yet */
    REPL_FETCH_BYTES = 4 << 20,                              /* asked for at a time */
    REPL_BYTES_MAX = SEGMENT_HEADER_BYTES + FRAME_BYTES_MAX, /* that ever come at a time */
    REPL_TEXT_MAX = 256,
    /* of fetches: one for each log, one for repairs, one for what members have, one for digests, one for logs
       that nobody extends any more */
    REPL_SLOTS = REPL_LOGS_MAX + 4,
    REPL_WAIT_MS = 5000,   /* how long a source may hold a fetch */
    REPL_DIGESTS_MAX = 64, /* in a digests_reply */
    REPL_CLOSED_MAX = 1024 /* as many as walsvc's register has */
};

struct repl_core;

struct repl_options {
    const char *node;            /* own id; copied */
    struct id16 log;             /* uuid of the own log */
    int64_t compare_interval_ns; /* 0: digests are not compared */
};

struct repl_core *repl_core_open(const struct repl_options *options);
void repl_core_close(struct repl_core *core);

/* ---- what comes in ---- */

struct repl_watermark {
    struct id16 log;
    uint64_t lsn, end;
};

/* Another member of the own group, which has not left. */
struct repl_member {
    char id[CONFIG_ID_MAX + 1], host[256];
    uint16_t port;   /* the first of its five */
    struct id16 log; /* zero: it has never come */
    bool up;         /* not down: worth asking */
    /* Of the cluster, or in the place of a member that was replaced: it counts for a quorum, whether it has
     * come yet or not. */
    bool is_founder, is_replaced;
    struct repl_watermark watermarks[REPL_LOGS_MAX];
    size_t watermark_count;
};
/* All of them; those beyond REPL_MEMBERS_MAX are left out by the caller, who tells. Copied. */
void repl_core_members(struct repl_core *core, int64_t now_ns, const struct repl_member *members,
                       size_t count);

/* Whether who sends this is a member of the group, with that log. False: counted, and REPL_REFUSE answers the
 * token. */
bool repl_core_may_ask(struct repl_core *core, int64_t now_ns, uint64_t token, struct slice sender,
                       struct id16 from);
/* NULL: nobody of that id is one. Until the next call. */
const struct repl_member *repl_core_member(const struct repl_core *core, struct slice id);

/* Before repl_core_members: whether this node is a member, and all others of its group are among them. Until
 * then no log is closed. */
void repl_core_standing(struct repl_core *core, bool is_certain);

/* A closed log whose copy was dropped here. */
struct repl_closed_log {
    struct id16 log;
    struct log_chain end;
    int64_t dropped_ns; /* real time */
    bool lives;         /* the core's: walsvc was told that it does */
};
/* walsvc's register of them, before the repl_core_logs that goes with it. Copied. */
void repl_core_closed(struct repl_core *core, const struct repl_closed_log *closed, size_t count);
/* walsvc's answer to a REPL_GONE; taken: no error. */
void repl_core_gone_told(struct repl_core *core, int64_t now_ns, bool taken);

/* What walsvc says of its logs. */
struct repl_logs {
    struct id16 boot;            /* of walsvc */
    bool waits;                  /* the own log isn't extended before REPL_OWN_LOG says what others have */
    bool own_copy;               /* nor is it: it's open as a copy, and is fetched back */
    const struct held_log *held; /* that are held, the own one first */
    size_t count;
    uint32_t given_up[GIVEN_UP_MAX]; /* of the own log: checksums of the first frames of what was */
    size_t given_up_count;
};
void repl_core_logs(struct repl_core *core, int64_t now_ns, const struct repl_logs *logs);

/* walsvc has refused a REPL_OWN_LOG. */
void repl_core_not_told(struct repl_core *core, int64_t now_ns);

/* The answer to REPL_LOOK_BACK: where that segment begins; NULL: there is none. */
void repl_core_begins(struct repl_core *core, int64_t now_ns, uint64_t serial,
                      const struct log_chain *begins);

/* Where a member's frames and those here part. */
struct repl_fork {
    struct log_chain at; /* up to here they are the same; when all are, behind them */
    bool all_same;
    bool has_own;         /* there is another frame here; else the log ends there */
    uint32_t theirs, own; /* checksums of the first frames that are not the same */
};
/* Compares whole frames (a segment's header before them) that a member sent, and that continue fork->at, with
 * those that are here from there on: moves fork->at, and sets all_same and theirs. */
void repl_fork_compare(struct slice theirs, struct slice own, struct repl_fork *fork);
/* The checksum of the first of whole frames; 0: there is none. */
uint32_t repl_fork_first(struct slice frames);
/* The answer to REPL_FIND_FORK; NULL: the frames here can't be read. */
void repl_core_parted(struct repl_core *core, int64_t now_ns, uint64_t serial, const struct repl_fork *fork);

/* What is to be told with an answer of that state about a log; appended, nothing when there is nothing. */
void repl_core_given_up(const struct repl_core *core, struct id16 log, enum log_copy_state state,
                        struct buf *out);

/* What is asked for with REPL_ASK_DAMAGE: the log's first damaged range that begins behind this place. */
struct repl_ask_damage {
    struct id16 log;
    uint64_t segment, offset; /* both 0: before all */
};
/* That range, as walsvc says, which is neither repaired nor accepted as lost; all zero for none. */
struct repl_damage {
    uint64_t segment;  /* base LSN */
    uint64_t offset;   /* in its file */
    uint64_t bytes;    /* 0: there is none */
    uint64_t position; /* of the first byte */
    uint64_t lsn;      /* of the first entry that may be in it */
    bool differs;      /* it is whole, but not what the log's origin has, who alone is asked for it */
};
void repl_core_damage(struct repl_core *core, int64_t now_ns, struct id16 log,
                      const struct repl_damage *damage);
/* walsvc's answer to a REPL_REPAIR: a repair_reply or an error. */
void repl_core_repaired(struct repl_core *core, int64_t now_ns, uint32_t type, struct slice body);

/* A sealed segment, as its index has it. */
struct repl_digest {
    uint64_t base_lsn, bytes; /* bytes 0: there is no index here */
    struct digest128 digest;
};
/* What a REPL_COMPARE asks for: the own ones of the same segments, in the same order. */
void repl_core_digests(struct repl_core *core, int64_t now_ns, const struct repl_digest *own, size_t count);
/* walsvc's answer to a REPL_LOOK: a look_reply or an error. */
void repl_core_looked(struct repl_core *core, int64_t now_ns, uint32_t type, struct slice body);

/* The answer to a fetch, or to REPL_ASK_DIGESTS: the body of the reply or an error. True: an action
 * REPL_STORE, REPL_REPAIR or REPL_FIND_FORK holds on to the body, until it is answered. */
bool repl_core_fetched(struct repl_core *core, int64_t now_ns, unsigned slot, uint64_t serial, uint32_t type,
                       struct slice body);
/* There will be no answer: the connection broke, or none came about. */
void repl_core_fetch_failed(struct repl_core *core, int64_t now_ns, unsigned slot, uint64_t serial);
/* walsvc's answer to a REPL_STORE of so many bytes: a copy_append_reply or an error. */
void repl_core_stored(struct repl_core *core, int64_t now_ns, unsigned slot, size_t bytes, uint32_t type,
                      struct slice body);

/* A fetch from another node; token: the caller's, for the answer. */
void repl_core_asked(struct repl_core *core, int64_t now_ns, uint64_t token, struct slice sender,
                     const struct msg_fetch *fetch);
/* A REPL_SERVE was answered with that state; asker: its id. */
void repl_core_served(struct repl_core *core, int64_t now_ns, struct slice asker, struct id16 log,
                      enum log_copy_state state);
/* A question for digests. */
void repl_core_asked_digests(struct repl_core *core, int64_t now_ns, uint64_t token, struct slice sender,
                             const struct msg_digests *digests);
/* What a REPL_SERVE found: a copy is on the chain of the log here up to the place that was asked for. by: the
 * asking node's own log. */
void repl_core_proved(struct repl_core *core, struct id16 log, struct id16 by, const struct log_chain *place);
/* A position from another node. */
void repl_core_position(struct repl_core *core, int64_t now_ns, struct slice sender,
                        const struct msg_position *position);

/* walsvc has a hold of this name, that of a member which has left: it goes. */
void repl_core_found_hold(struct repl_core *core, struct id16 log, struct slice name);
/* walsvc has refused a hold, whichever: all are told again, within 5 s. */
void repl_core_hold_refused(struct repl_core *core);

void repl_core_tick(struct repl_core *core, int64_t now_ns);
/* When the next tick is due. */
int64_t repl_core_due_ns(const struct repl_core *core);

/* ---- what comes out ---- */

enum repl_action_kind {
    REPL_FETCH,         /* send `fetch` to host:port, by the slot's socket */
    REPL_CANCEL,        /* no answer to the slot's fetch is wanted any more: use a fresh socket next time */
    REPL_STORE,         /* hand `store` to walsvc */
    REPL_SERVE,         /* read the frames that `serve` asks for and answer the token */
    REPL_REFUSE,        /* answer the token with an error */
    REPL_POSITION,      /* push `position` to host:port */
    REPL_REPLICATED,    /* tell walsvc `replicated` */
    REPL_ASK_DAMAGE,    /* ask walsvc for `damaged` */
    REPL_REPAIR,        /* hand `repair` to walsvc */
    REPL_OWN_LOG,       /* tell walsvc `own_log`; the text is in `detail` */
    REPL_HOLD,          /* have walsvc keep `hold` for the member `id`, or no more */
    REPL_ASK_LOGS,      /* ask walsvc at once how far its logs are */
    REPL_ASK_DIGESTS,   /* as REPL_FETCH, but it is `digests` that is sent */
    REPL_COMPARE,       /* read the own digests of the segments of `compare`, for repl_core_digests */
    REPL_LOOK,          /* have walsvc read the segment that `look` names */
    REPL_SERVE_DIGESTS, /* read the digests that `digests` asks for and answer the token */
    REPL_GONE,          /* tell walsvc `gone` */
    REPL_TELL,          /* answer the token with `reply` */
    REPL_LOOK_BACK,     /* find the newest segment that `back` asks for: repl_core_begins */
    REPL_FIND_FORK,     /* compare what `parts` has with what is here: repl_core_parted */
    REPL_NOTICE,        /* for the log */
    REPL_ALARM,         /* an event, too */
};

struct repl_store {
    struct id16 log;
    uint64_t position;
    struct slice bytes; /* of the body that repl_core_fetched got */
    bool anew;
    bool over; /* other frames that stand there are replaced; of another node's log: those with one of */
    uint32_t given_up[GIVEN_UP_MAX];
    size_t given_up_count;
};

/* The newest segment whose header is good and that begins at or before that position. */
struct repl_look_back {
    struct id16 log;
    uint64_t position;
};

struct repl_find_fork {
    struct id16 log;
    struct log_chain from; /* what the bytes continue, and what is here */
    uint64_t durable_end;  /* of what is here: a position that isn't passed */
    struct slice bytes;    /* of the body that repl_core_fetched got */
};

/* A fetch to be answered now. */
struct repl_serve {
    struct id16 log, by; /* by: the asking node's own log */
    struct log_chain from, durable;
    bool anew, repair;
    size_t most_bytes;
    uint64_t most_entries;
};

struct repl_repair_bytes {
    struct id16 log;
    uint64_t segment, offset;
    struct slice bytes; /* of the body that repl_core_fetched got */
};

struct repl_hold {
    struct id16 log;
    uint64_t lsn; /* first that is needed */
    bool remove;
};

struct repl_compare_digests {
    struct id16 log;
    const struct repl_digest *theirs; /* the core's, until it is told the own ones */
    size_t count;
};

struct repl_action {
    enum repl_action_kind kind;
    unsigned slot;                         /* FETCH, ASK_DIGESTS, CANCEL, STORE */
    uint64_t serial;                       /* FETCH, ASK_DIGESTS; of LOOK_BACK, FIND_FORK: for the answer */
    uint64_t token;                        /* SERVE, SERVE_DIGESTS, REFUSE, TELL */
    char host[256], id[CONFIG_ID_MAX + 1]; /* FETCH, ASK_DIGESTS, POSITION: to whom. NOTICE, ALARM, HOLD:
                                              about whom. SERVE: who asks */
    uint16_t port;                         /* FETCH, ASK_DIGESTS, POSITION: base port + 4, + 4, + 3 */
    enum sh_error error;                   /* REFUSE */
    int level;                             /* NOTICE: enum log_level */
    const char *text;                      /* REFUSE, NOTICE: a constant */
    char detail[REPL_TEXT_MAX];            /* NOTICE, ALARM, OWN_LOG */
    union {
        struct msg_fetch fetch;
        struct repl_store store;
        struct repl_serve serve;
        struct msg_position position;
        struct msg_replicated replicated;
        struct repl_hold hold;
        uint64_t verdict; /* of own_log */
        struct repl_ask_damage damaged;
        struct repl_repair_bytes repair;
        struct msg_digests digests;
        struct repl_compare_digests compare;
        struct msg_look look;
        struct msg_log_gone gone;
        struct msg_fetch_reply reply;
        struct repl_look_back back;
        struct repl_find_fork parts;
    };
};
/* Takes the oldest one. */
bool repl_core_next_action(struct repl_core *core, struct repl_action *out);

/* ---- questions ---- */

/* Nobody else is in the group. */
bool repl_core_is_alone(const struct repl_core *core);

/* Values are part of the wire format: replica_info.state. */
enum repl_state {
    REPL_DISCONNECTED,
    REPL_CATCHING_UP,
    REPL_STREAMING,
    REPL_WAITING,
    REPL_REPAIRING,
    REPL_TRIMMED,
    REPL_FORKED,
};

/* The arrays `followed`, `followers` and `closed` of replicas_reply, appended. */
void repl_core_followed(const struct repl_core *core, int64_t now_ns, struct buf *out);
void repl_core_followers(const struct repl_core *core, int64_t now_ns, struct buf *out);
void repl_core_closed_logs(const struct repl_core *core, struct buf *out);
/* How far a member is behind with the own log; of members that were never heard, since they were known. */
struct repl_lag {
    const char *member; /* the core's, until the members change */
    uint64_t entries, bytes;
    int64_t ns; /* for how long it has been without them; 0: it has all */
};
/* Returns how many. */
size_t repl_core_lags(const struct repl_core *core, int64_t now_ns, struct repl_lag out[REPL_MEMBERS_MAX]);
/* Whether these are all: of the group's members, and of the logs that the node holds. */
bool repl_core_is_certain(const struct repl_core *core);

/* Of the own log. */
struct repl_progress {
    uint64_t durable_lsn, quorum_lsn, all_lsn; /* UINT64_MAX: nobody else is in the group */
};
struct repl_progress repl_core_progress(const struct repl_core *core);

/* Since the core was opened; each has its name in replicas_reply.counters. */
#define REPL_COUNTERS(X)                                                                                     \
    X(fetches)       /* sent */                                                                              \
    X(fetched_bytes) /* that came */                                                                         \
    X(stored_bytes)  /* durable in copies */                                                                 \
    X(served)        /* fetches answered, but by an error */                                                 \
    X(positions)     /* of the own log, that came */                                                         \
    X(malformed)     /* not a message of ours, or beyond its limits */                                       \
    X(other_version) /* of the protocol */                                                                   \
    X(other_cluster) /* messages of one */                                                                   \
    X(not_held)      /* fetches of logs that are not here */                                                 \
    X(too_many)      /* on one connection, without reading the answers: it was closed */                     \
    X(not_member)    /* from who isn't one of the group, or with another identity */                         \
    X(not_asked_for) /* frames of another log or place than was asked for */                                 \
    X(bad_frames)    /* frames that are damaged, or do not continue the chain */                             \
    X(beyond)        /* positions beyond the end of the own log */                                           \
    X(failed)        /* fetches without an answer */                                                         \
    X(refused)       /* fetches answered by an error */                                                      \
    X(forks)         /* places that are on another chain at a source, or positions on another one here */    \
    X(repairs)       /* damaged ranges that are whole again */                                               \
    X(compared)      /* sealed segments whose digest was compared with another member's */                   \
    X(differences)   /* of these: another digest or size */                                                  \
    X(gaps)          /* copies that were begun anew, behind what is trimmed everywhere */                    \
    X(checks)        /* members that were looked at for what they say of a chain */                          \
    X(unproved)      /* of these: they had no frames to show for it */                                       \
    X(replaced)      /* forked copies whose frames were fetched anew, from where they fork */                \
    X(retries)       /* of fetches for copies, after one that failed */                                      \
    X(exhausted)     /* times that a copy's frames filled the window: no more is asked for until some are    \
                        durable */

struct repl_counters {
#define REPL_COUNTER(name) uint64_t name;
    REPL_COUNTERS(REPL_COUNTER)
#undef REPL_COUNTER
};
const struct repl_counters *repl_core_counters(const struct repl_core *core);
/* The shell refused a message before it came here: counted, and told once a minute for each reason. */
enum repl_stranger { REPL_MALFORMED, REPL_OTHER_VERSION, REPL_OTHER_CLUSTER, REPL_TOO_MANY };
void repl_core_stranger(struct repl_core *core, int64_t now_ns, enum repl_stranger reason,
                        struct slice sender);

#endif
