/* libshanghai: how nodes, logs, groups and the cluster are, and what is done to them. Included by shanghai.h,
 * as part of it. */
#ifndef SHANGHAI_ADMIN_H
#define SHANGHAI_ADMIN_H

#include "shanghai.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the node ---- */
enum sh_writes {
    SH_WRITES_TAKEN,
    SH_WRITES_DISK_FULL, /* an append was refused for it, and there is no room yet */
    SH_WRITES_READ_ONLY, /* the node left its cluster, or was replaced */
    SH_WRITES_AWAY       /* walsvc does not answer */
};
struct sh_status {
    char cluster[65], node[65], version[65];
    uint8_t log[16];
    bool writable;         /* appends are taken */
    enum sh_writes writes; /* why not */
    uint64_t first_lsn;    /* that is left */
    uint64_t durable_lsn;  /* of the last durable entry that querysvc knows of */
    uint64_t durable_end;  /* position in the log, in bytes, behind the last durable frame */
    uint64_t disk_bytes;   /* of the segment files, what is allocated ahead included */
    uint64_t uptime_ms;    /* of querysvc */
    uint32_t segments;     /* files */
    uint32_t clients;      /* connected to querysvc, this one included */
    uint64_t commits; /* groups written and synced since walsvc started, as querysvc last heard; 0: unknown */
};
/* Asks the node how it is; status is the caller's, and all zero after an error. SH_TIMEOUT: no answer within
 * timeout_ms of the options; SH_UNAVAILABLE: the node cannot be reached for so long. SH_BAD_REQUEST: in a
 * callback, or the node belongs to another cluster. SH_VERSION_MISMATCH: it speaks another version.
 * SH_INTERNAL: its answer makes no sense. */
enum sh_error sh_status(struct sh_client *client, struct sh_status *status);

struct sh_segment {
    uint64_t base_lsn;   /* of its first entry */
    uint64_t position;   /* of its first byte in the log, in bytes */
    uint64_t file_bytes; /* what is allocated ahead included */
    int64_t created_ns;  /* since 1970 */
    bool sealed;
};
struct sh_log_info {
    uint8_t log[16];
    uint64_t first_lsn, durable_lsn, durable_end; /* as in sh_status */
    struct sh_segment *segments;                  /* oldest first; freed by sh_log_info_free */
    size_t segment_count;
};
/* The segments of a log that the node holds. log: 16 bytes, or NULL for the node's own; info is the caller's,
 * what it points to is freed with sh_log_info_free, and it is all zero after an error. SH_NOT_FOUND: the node
 * does not hold that log. SH_CORRUPT: a segment cannot be read. Otherwise sh_status's errors. The position of
 * a segment whose start is damaged may be a guess. */
enum sh_error sh_log_info(struct sh_client *client, const uint8_t *log, struct sh_log_info *info);
/* Frees the segments, not info itself; does nothing the second time, or after an error. */
void sh_log_info_free(struct sh_log_info *info);

/* ---- replication groups ---- */
enum sh_group_kind { SH_GROUP_KEY, SH_GROUP_STREAM };
/* A group of nodes that hold the same keys and streams (docs/groups.md). */
struct sh_group {
    char name[65];
    bool here;        /* that of the node that has answered */
    char **endpoints; /* of its nodes, those that are up first, as that node sees them */
    size_t endpoint_count;
};
/* Which group a key, or a stream, belongs to: any node knows. All other calls find it by themselves. *group
 * is the caller's, what it points to is freed with sh_group_free, and it is all zero after an error.
 * SH_BAD_REQUEST, SH_TOO_LARGE: the name. Otherwise sh_status's errors. */
enum sh_error sh_group_of(struct sh_client *client, enum sh_group_kind kind, const void *name, size_t bytes,
                          struct sh_group *group);
/* Frees the endpoints, and makes it all zero. */
void sh_group_free(struct sh_group *group);

/* ---- what keeps the log ---- */
struct sh_trim_options {
    uint64_t before_lsn; /* the first LSN that is to stay */
    bool dry_run;        /* only say what would be done */
    const char *release; /* name of holds that are given up first, at most 64 bytes; NULL for none */
    const uint8_t *log;  /* 16 bytes, or NULL for the node's own */
};
struct sh_trim_result {
    uint64_t first_lsn;       /* that is left */
    uint64_t segments, bytes; /* deleted, or that would be */
    char **held_by;           /* what holds back the next segment below before_lsn: "member n2" */
    size_t held_by_count;
    bool
        drops; /* the log is closed, and before_lsn behind its end: all of the copy goes, in the background */
};
/* Deletes whole sealed segments below an LSN, the oldest first, that nothing holds; result is the caller's,
 * what it points to is freed with sh_log_trim_free, and it is all zero after an error. SH_NOT_FOUND: there is
 * no hold of the name to release, or no such log. SH_TRIMMED: the log is closed, and was dropped.
 * SH_FORBIDDEN: connected by tcp. SH_TIMEOUT, SH_UNAVAILABLE: it may have
 * been done. Otherwise sh_status's errors. */
enum sh_error sh_log_trim(struct sh_client *client, const struct sh_trim_options *options,
                          struct sh_trim_result *result);
/* Frees the names, not result itself; does nothing the second time, or after an error. */
void sh_log_trim_free(struct sh_trim_result *result);

enum sh_hold_kind { SH_HOLD_MEMBER = 1, SH_HOLD_VIEW, SH_HOLD_READER, SH_HOLD_BACKUP, SH_HOLD_CURSOR };
/* Keeps segments from being trimmed. */
struct sh_hold {
    enum sh_hold_kind kind;
    char name[65];
    uint64_t lsn;        /* first LSN that is needed */
    int64_t expires_ns;  /* since 1970; 0: never */
    bool broken;         /* it kept too much, and keeps nothing any more */
    uint64_t kept_bytes; /* beyond their retention */
};
struct sh_kept_segment {
    uint64_t base_lsn, next_lsn; /* next_lsn: of the segment behind; 0: it is being written */
    uint64_t position, bytes;
    int64_t last_ns;     /* time of its last entry, ns since 1970; 0: not known */
    bool due;            /* beyond its retention */
    bool damaged_header; /* of it or the next one, beyond what frames tell; it cannot be trimmed */
    bool above_mark;     /* the durable mark does not lie behind it yet */
};
struct sh_damage {
    char file[64];
    uint64_t offset, bytes;       /* in the file */
    uint64_t first_lsn, next_lsn; /* next_lsn: the first one behind it; first_lsn: it holds no entry */
    int64_t found_ns;             /* since 1970 */
    int64_t accepted_ns;          /* since 1970: its loss was accepted; 0: it wasn't */
    bool differs;                 /* it can be read, but it is not what the log's origin has */
    char copy[96];                /* file in data/quarantine with what was there; "": none */
};
struct sh_wal_info {
    struct sh_kept_segment *segments; /* oldest first */
    size_t segment_count;
    struct sh_hold *holds;
    size_t hold_count;
    struct sh_damage *damages;
    size_t damage_count;
    uint64_t retention_bytes;  /* 0: unlimited */
    uint64_t retention_age_ns; /* 0: for ever */
    uint64_t member_hold_max;
    uint64_t disk_free, disk_total, disk_reserve;
    enum { SH_NEXT_PREPARING, SH_NEXT_READY, SH_NEXT_DISK_FULL } next_segment;
    uint64_t scrub_rate; /* bytes a second; 0: off */
    uint64_t scrub_interval_ns, scrub_done, scrub_total, scrub_damages;
    int64_t scrub_last_ns; /* end of the last full pass, ns since 1970; 0: none yet */
    bool scrubbing;
    bool closed; /* nobody extends the log any more, and all of the group hold it up to its end */
};
/* What walsvc knows of a log. log: 16 bytes, or NULL for the node's own; info is the caller's, what it points
 * to is freed with sh_wal_info_free, and it is all zero after an error. SH_UNAVAILABLE at once while walsvc
 * is away. SH_NOT_FOUND: it keeps no such record of that log. SH_TRIMMED: the log is closed, and was dropped
 * here. Otherwise sh_status's errors. */
enum sh_error sh_wal_info(struct sh_client *client, const uint8_t *log, struct sh_wal_info *info);
/* Frees the lists, not info itself; does nothing the second time, or after an error. */
void sh_wal_info_free(struct sh_wal_info *info);

struct sh_loss {
    uint8_t log[16];
    uint64_t first_lsn, last_lsn; /* of the entries that are given up */
    uint64_t begin, end;          /* positions in the log, in bytes, between which they were */
    int64_t accepted_ns;          /* since 1970: they were given up before, then; 0: now */
};
/* Gives up, for good, entries that cannot be read and that nobody has: first_lsn to last_lsn, which must be
 * all that is missing in one place. log: 16 bytes, or NULL for the node's own. On SH_OK the loss stands in
 * the log, durably; *loss (may be NULL) says what it was. Asking again is fine, and changes nothing.
 * SH_CONFLICT: some of it can be read, or more is missing there; the detail says which. SH_TRIMMED,
 * SH_NOT_FOUND: the log begins behind it, or ends before it. SH_FORBIDDEN: connected by tcp. SH_DISK_FULL: no
 * room for the note. Otherwise sh_status's errors; after SH_TIMEOUT the outcome is unknown. */
enum sh_error sh_accept_loss(struct sh_client *client, const uint8_t *log, uint64_t first_lsn,
                             uint64_t last_lsn, struct sh_loss *loss);

/* ---- the cluster ---- */
enum sh_node_status {
    SH_NODE_JOINING,
    SH_NODE_UP,
    SH_NODE_SUSPECT,
    SH_NODE_DOWN,
    SH_NODE_MUST_REJOIN,
    SH_NODE_LEFT
};
/* "joining", "up", ...; "unknown" for a value outside the list. A static string. */
const char *sh_node_status_name(enum sh_node_status status);

/* How the answering node stands to its cluster. */
enum sh_node_state {
    SH_STATE_FOUNDING, /* it knows its topology file only */
    SH_STATE_MEMBER,
    SH_STATE_LEFT,
    SH_STATE_REPLACED,
    SH_STATE_REFUSED /* another identity has its id */
};
/* "founding", "member", ...; as above. */
const char *sh_node_state_name(enum sh_node_state state);

struct sh_watermark {
    uint8_t log[16];
    uint64_t lsn, end; /* of the last durable entry; position behind its frame, in bytes */
};
/* A member, or one that left, as the answering node sees it. */
struct sh_node {
    char id[65], group[65], host[256];
    uint16_t port, admin_port; /* admin_port 0: none */
    enum sh_node_status status;
    int64_t since_ms;     /* when that began, ms since 1970, by the clock of who saw it */
    uint64_t generation;  /* how often the id was joined; 0: only named by a topology file */
    uint64_t incarnation; /* raised by the node itself whenever it starts, moves or refutes */
    uint8_t log[16];      /* its own; all zero until it has come for the first time */
    uint8_t boot[16];
    int64_t born_ms;  /* when its log came to be */
    bool self;        /* the node that answers */
    bool observed;    /* the answering node expects its heartbeats */
    bool unreachable; /* nothing comes from it directly, though others reach it */
    bool drifting;    /* its clock is too far from that of the node that answers */
    int64_t heard_ms; /* age of the last sign of life that came directly; -1: none, or the node itself */
    int64_t ahead_ms; /* of its clock; negative: it is behind */
    struct sh_watermark *watermarks; /* of the logs it holds, as it told last */
    size_t watermark_count;
};
struct sh_counter {
    char name[32];
    uint64_t count;
};
struct sh_nodes {
    char cluster[65], node[65]; /* node: the one that answers */
    enum sh_node_state state;
    char text[513];        /* unless it is a member: what is the matter, and what to do */
    struct sh_node *nodes; /* ordered by id, those that left included */
    size_t node_count;
    struct sh_counter *counters; /* of membersvc, since it started */
    size_t counter_count;
    uint64_t only_first, only_last; /* left or replaced: entries of its log that no member holds; 0: none */
    uint64_t next_event;            /* number that the next event will get */
};
/* Who is in the cluster, and how they are. nodes is the caller's, what it points to is freed with
 * sh_nodes_free, and it is all zero after an error. SH_UNAVAILABLE at once while membersvc is away. Otherwise
 * sh_status's errors. */
enum sh_error sh_nodes(struct sh_client *client, struct sh_nodes *nodes);
/* Frees the lists, not nodes itself; does nothing the second time, or after an error. */
void sh_nodes_free(struct sh_nodes *nodes);

enum sh_replica_state {
    SH_REPLICA_DISCONNECTED,
    SH_REPLICA_CATCHING_UP,
    SH_REPLICA_STREAMING,
    SH_REPLICA_WAITING, /* no credit: the follower's disk is behind */
    SH_REPLICA_REPAIRING,
    SH_REPLICA_TRIMMED, /* what comes next is gone where it was asked for */
    SH_REPLICA_FORKED   /* it differs from what others have */
};
/* "disconnected", "catching_up", "waiting_for_follower", ...; "unknown" for a value outside the list. A
 * static string. */
const char *sh_replica_state_name(enum sh_replica_state state);

/* One log at one node. */
struct sh_replica {
    uint8_t log[16];
    char origin[65]; /* id of the member whose log it is; "": of none that is a member now */
    char peer[65]; /* of a followed log: the member that it comes from, "": none; of a follower: who it is */
    enum sh_replica_state state;
    uint64_t lsn, end;               /* durable there: LSN, position in bytes */
    uint64_t lag_entries, lag_bytes; /* behind the furthest that is known of the log */
    uint64_t lag_ms;                 /* since it was caught up; 0: it is */
    uint64_t credit;                 /* bytes that it would take now; of a followed log */
    uint64_t retries; /* fetches that failed or led to nothing, since replsvc started; of a followed log */
    int64_t seen_ms;  /* age of the last word of it; -1: none yet */
    bool closed;      /* nobody extends the log any more, and all of the group hold it up to its end */
};
/* A log that was closed, and whose copy the node has dropped. */
struct sh_closed_log {
    uint8_t log[16];
    uint64_t lsn, end;  /* where it ended: LSN, position in bytes, */
    uint32_t checksum;  /* of the last frame */
    int64_t dropped_ns; /* since 1970 */
};
struct sh_replicas {
    char node[65];                             /* that answers, */
    uint8_t log[16];                           /* and its own log: */
    uint64_t durable_lsn, quorum_lsn, all_lsn; /* durable on it, on a majority of its group, on all of the
                                                  group; UINT64_MAX: the node is alone */
    struct sh_replica *followed;               /* copies that the node keeps; its own log, too, while that is
                                                  fetched back from the others */
    size_t followed_count;
    struct sh_replica *followers; /* the other members of its group, and the node's own log at them */
    size_t follower_count;
    struct sh_counter *counters; /* of replsvc, since it started */
    size_t counter_count;
    struct sh_closed_log *closed; /* the oldest first */
    size_t closed_count;
};
/* Which logs a node follows, who follows its own, and how far each copy is. replicas is the caller's, what it
 * points to is freed with sh_replicas_free, and it is all zero after an error. SH_UNAVAILABLE at once while
 * replsvc is away. Otherwise sh_status's errors. */
enum sh_error sh_replicas(struct sh_client *client, struct sh_replicas *replicas);
/* Frees the lists, not replicas itself; does nothing the second time, or after an error. */
void sh_replicas_free(struct sh_replicas *replicas);

enum sh_metric_kind { SH_METRIC_COUNTER, SH_METRIC_GAUGE, SH_METRIC_HISTOGRAM };
/* "counter", "gauge", "histogram"; "unknown" for a value outside the list. A static string. */
const char *sh_metric_kind_name(enum sh_metric_kind kind);
enum sh_metric_unit { SH_METRIC_COUNT, SH_METRIC_BYTES, SH_METRIC_SECONDS };
#define SH_METRIC_LABELS 4
struct sh_metric_label {
    char name[32], value[129];
};
/* One series; docs/metrics.md says what each metric means. */
struct sh_metric {
    char name[65]; /* "shanghai_wal_entries_total" */
    enum sh_metric_kind kind;
    enum sh_metric_unit unit;
    struct sh_metric_label labels[SH_METRIC_LABELS];
    size_t label_count;
    int64_t value;            /* in its unit, seconds in ns; of a histogram the sum */
    uint64_t count, p50, p99; /* of a histogram: how many, and quantiles in the same unit of
                                 the last 10 to 20 s, 0 when there was nothing */
};
struct sh_metrics {
    struct sh_metric *all; /* by metric */
    size_t count;
};
/* What the node measures, of metrics whose name begins with prefix ("": all). metrics is the caller's, what
 * it points to is freed with sh_metrics_free, and it is all zero after an error. SH_UNAVAILABLE at once while
 * obssvc is away. Otherwise sh_status's errors. */
enum sh_error sh_metrics(struct sh_client *client, const char *prefix, struct sh_metrics *metrics);
/* Frees the list, not metrics itself; does nothing the second time, or after an error. */
void sh_metrics_free(struct sh_metrics *metrics);

enum sh_health_level { SH_HEALTH_GOOD, SH_HEALTH_DEGRADED, SH_HEALTH_UNAVAILABLE };
/* "healthy", "degraded", "unavailable"; "unknown" for a value outside the list. A static string. */
const char *sh_health_name(enum sh_health_level level);
struct sh_health {
    enum sh_health_level level;
    char **reasons; /* a clause for people each, the worst first; none when it is good */
    size_t reason_count;
};
/* How a cluster is, as one node sees it (docs/cluster-protocol.md, "Health"). nodes NULL: membersvc does not
 * answer; replicas NULL: replsvc does not. *health is the caller's, what it points to is freed with
 * sh_health_free. */
void sh_health(const struct sh_status *status, const struct sh_nodes *nodes,
               const struct sh_replicas *replicas, struct sh_health *health);
/* Frees the reasons, not health itself; does nothing the second time. */
void sh_health_free(struct sh_health *health);

struct sh_join_options {
    const char *id;
    const char *host;    /* NULL with replace: as before */
    uint16_t port;       /* first of its five ports; 0 with replace: as before */
    uint16_t admin_port; /* 0: none, with replace as before */
    const char *group;   /* NULL: "default", with replace as before */
    bool replace;        /* a new identity takes the place of the member with this id, whose disk was lost */
};
/* Makes a node a member; asked of a member, on its own host. On SH_OK it is on that one's disk and on its way
 * to the others; *generation (may be NULL) says how often the id was joined. SH_ALREADY_MEMBER: it is one,
 * and replace is not set; also when an earlier try of the same call landed. SH_NOT_FOUND: replace, and there
 * is no such member. SH_CONFLICT: another member has that address. SH_TOO_LARGE: there are as many as can be.
 * SH_NOT_MEMBER: the node that is asked has left. SH_DISK_FULL: on the node that is asked; nothing is
 * changed. SH_FORBIDDEN: connected by tcp. SH_BAD_REQUEST: id, host, port or group. SH_UNAVAILABLE at once:
 * membersvc is away, or its node belongs to no cluster yet; when the detail says that it was lost, and with
 * SH_TIMEOUT, it may have been done. Otherwise sh_status's errors. */
enum sh_error sh_node_join(struct sh_client *client, const struct sh_join_options *options,
                           uint64_t *generation);

struct sh_leave_result {
    uint64_t generation;
    uint8_t log[16];                /* its own; all zero when it never came */
    uint64_t only_first, only_last; /* entries of that log that no other member is known to hold; 0: none */
};
/* Takes a node out of the cluster, with what was said of joins; *result (may be NULL) is all zero after an
 * error. SH_NOT_MEMBER: it is no member, or the node that is asked has left. SH_CONFLICT: it is the last one.
 */
enum sh_error sh_node_leave(struct sh_client *client, const char *id, struct sh_leave_result *result);

enum sh_node_event_kind {
    SH_EVENT_JOINING = 1,
    SH_EVENT_UP,
    SH_EVENT_SUSPECT,
    SH_EVENT_DOWN,
    SH_EVENT_MUST_REJOIN,
    SH_EVENT_LEFT,
    SH_EVENT_RESTARTED,
    SH_EVENT_MOVED,    /* another address */
    SH_EVENT_REPLACED, /* another identity may come */
    SH_EVENT_UNREACHABLE,
    SH_EVENT_REACHABLE,
    SH_EVENT_CLOCK_DRIFT,
    SH_EVENT_CLOCK_GOOD,
    SH_EVENT_FOUNDED, /* the node that tells */
    SH_EVENT_REFUSED, /* the node that tells: another identity has its id */
    SH_EVENT_ALARM    /* something to be looked at; the text says what */
};
/* "joining", "up", ...; "unknown" for a value outside the list. A static string. */
const char *sh_node_event_name(enum sh_node_event_kind kind);

/* A change in the cluster, as one node saw it. */
struct sh_node_event {
    uint8_t series[16]; /* numbers count within it */
    uint64_t number;    /* 1, 2, 3, ... without gaps */
    enum sh_node_event_kind kind;
    int64_t wall_ms; /* when that node saw it, ms since 1970 */
    char id[65];     /* whom it is about */
    uint64_t generation, incarnation;
    char text[256]; /* more about it; "": nothing */
};
struct sh_events;
struct sh_events_options {
    uint8_t series[16]; /* that `after` is a number of; all zero: the present one of the node */
    uint64_t after;     /* number of the last event that is known; 0: from the oldest that is kept;
                           UINT64_MAX: only those that come */
    bool follow;        /* at the end, wait for more instead of ending */
};
/* Opens a subscription to what a node sees; *events is freed with sh_events_close, before its client is
 * closed. Options are copied. Asks the node only when `after` is UINT64_MAX, with sh_nodes's errors. */
enum sh_error sh_events_open(struct sh_client *client, const struct sh_events_options *options,
                             struct sh_events **events);
/* The next event: each once, in order, also over restarts of the node. wait_ms in milliseconds, for follow
 * only. SH_NOT_FOUND: the end (never with follow). SH_TIMEOUT: with follow, nothing new within wait_ms; call
 * again. SH_TRIMMED: events were lost, since they are not kept any more; the next call goes on with the
 * oldest that is. SH_CONFLICT: the node that is there now counts in another series; the next call goes on
 * with the oldest of that. SH_UNAVAILABLE (without follow at once while membersvc is away), SH_TIMEOUT: may
 * be called again. Otherwise sh_status's errors. */
enum sh_error sh_events_next(struct sh_events *events, uint32_t wait_ms, struct sh_node_event *event);
/* Number of the last event that was given, or is known: what to go on after; series (may be NULL): of which
 * series, all zero before the node was met. */
uint64_t sh_events_position(const struct sh_events *events, uint8_t series[16]);
/* Frees it. NULL does nothing. */
void sh_events_close(struct sh_events *events);

#ifdef __cplusplus
}
#endif
#endif
