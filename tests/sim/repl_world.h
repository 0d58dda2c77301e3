/* A group of nodes in one process (docs/testing.md): replsvc's cores as they are, a walsvc that is modelled
 * (model_log.h), and what each node believes of the others. The network is that of member_net.h. */
#ifndef REPL_WORLD_H
#define REPL_WORLD_H

#include "member_net.h"
#include "model_log.h"
#include "repl_core.h"

enum {
    WORLD_NODES_MAX = 5,
    WORLD_LOGS_MAX = WORLD_NODES_MAX + 1,
    WORLD_PORT = 4000,
    WORLD_CORE_SLOTS = REPL_SLOTS
};

/* A copy_append on its way: replsvc keeps it until it is answered, and sends it again to a walsvc that was
 * away. */
struct sim_store {
    unsigned slot;
    size_t log;
    uint64_t position, end;
    bool anew, over, is_taken; /* written there, not yet durable */
    uint32_t given_up[GIVEN_UP_MAX];
    size_t given_up_count;
    size_t len;
    uint8_t *bytes;
};

/* A fetch that this node was asked and has not answered. */
struct sim_asked {
    uint64_t token, serial;
    uint32_t from, life;
    unsigned slot;
    struct id16 log;
};

enum { ASKED_MAX = 1024, STORES_MAX = 512 };

/* What is due at a node; SYNC: one more for each log. */
enum world_due {
    DUE_TICK,
    DUE_PUMP,
    DUE_HEARTBEAT,
    DUE_VIEW,
    DUE_APPEND,
    DUE_START_CORE,
    DUE_START_WAL,
    DUE_PROOF, /* the own log waits no longer for a word of others */
    DUE_SYNC
};
enum { WORLD_DUES = DUE_SYNC + WORLD_LOGS_MAX };

struct sim_view { /* of another node */
    int64_t heard_ns;
    struct repl_watermark watermarks[WORLD_LOGS_MAX];
    size_t count;
};

/* A data frame of the own log that was replaced, to be appended again. */
struct sim_aside {
    uint64_t id;
    uint32_t body_bytes, entries;
};

struct world_disk; /* repl_world_disk.h */

struct repl_node {
    char id[16];
    struct repl_core *core; /* NULL: replsvc does not run */
    uint32_t life;          /* of the core: counts starts */
    bool is_on;             /* the machine */
    bool is_wal_up;
    struct id16 boot;                      /* of walsvc */
    int64_t clock_ns;                      /* ahead of virtual time */
    struct model_log logs[WORLD_LOGS_MAX]; /* [i]: of node i; the last one's origin is gone for ever */
    bool holds[WORLD_LOGS_MAX];
    bool is_behind;  /* its own log was set back, in this round */
    bool must_prove; /* the machine was started, and nobody has said anything of the own log */
    bool own_copy;   /* the own log is open as a copy */
    uint32_t given_up[GIVEN_UP_MAX];
    size_t given_up_count;
    struct sim_aside *aside;
    size_t aside_count;
    struct world_disk *disk; /* NULL: there is only the model */
    bool was_on_disk;
    size_t syncing[WORLD_LOGS_MAX]; /* frames that will be durable then */
    uint64_t seen[WORLD_LOGS_MAX];  /* position up to which it was compared with the truth */
    struct sim_store stores[STORES_MAX];
    size_t store_count;
    struct sim_asked asked[ASKED_MAX];
    size_t asked_count;
    struct sim_view views[WORLD_NODES_MAX];
    struct msg_replicated replicated; /* as told to this boot of walsvc by this life of replsvc */
    int64_t due_ns[WORLD_DUES];
    int64_t slow_ns; /* each sync takes so much longer */
    unsigned refuse; /* percent of copy_appends that walsvc refuses */
    uint64_t ticks;  /* since the last second began */
    int64_t second_ns;
};

/* What a log is: what its origin has made durable, from the first byte that somebody may still compare. */
struct sim_truth {
    struct buf bytes;
    uint64_t from;
};

/* A data frame: which log, and what it is made of. */
struct sim_entry {
    size_t log;
    uint64_t id;
};

struct repl_world {
    struct net net;
    uint32_t count; /* of nodes */
    size_t log_count;
    struct repl_node *nodes;
    struct sim_truth truth[WORLD_LOGS_MAX];
    bool has_forks; /* own logs are set back: the truth is what others hold, and what is appended */
    struct sim_entry *entries; /* that must be in their logs once all is calm */
    size_t entry_count, entry_cap;
    uint64_t set_back, kept_aside, appended_again;
    bool is_loaded;           /* nodes append */
    unsigned garble_permille; /* of answers to fetches */
    bool is_verbose;
    uint64_t tokens;
    uint64_t unsynced_most; /* bytes of a log at a node */
    uint64_t compared_bytes, appended_frames, acknowledged, crashes, faults, trims, garbled;
    struct repl_counters counters; /* of cores that are gone, added up */
};

/* Prints what is wrong and the command that repeats it, and ends the process. */
__attribute__((format(printf, 1, 2), noreturn)) void world_fail(const char *format, ...);

void world_open(struct repl_world *w, uint32_t nodes, uint64_t seed);
void world_close(struct repl_world *w);
void world_run_for(struct repl_world *w, int64_t ns);
void world_due(struct repl_world *w, uint32_t node, unsigned what, int64_t after_ns);
void world_add_counters(struct repl_world *w, const struct repl_counters *counters);

/* ---- repl_world_net.c: what cores say, to each other and to their walsvc ---- */
/* After each call into the core. */
void world_after_call(struct repl_world *w, uint32_t node);
void world_receive(struct repl_world *w, const struct net_event *event);
void world_heartbeat(struct repl_world *w, uint32_t node);
void world_view(struct repl_world *w, uint32_t node);

/* ---- repl_world_wal.c: walsvc ---- */
void world_wal_store(struct repl_world *w, uint32_t node, const struct repl_action *action);
/* Takes what is waiting, answers what is durable, tells how far the logs are. */
void world_wal_pump(struct repl_world *w, uint32_t node);
void world_wal_synced(struct repl_world *w, uint32_t node, size_t log);
void world_wal_append(struct repl_world *w, uint32_t node);
void world_wal_burst(struct repl_world *w, uint32_t node);
void world_wal_replicated(struct repl_world *w, uint32_t node, const struct msg_replicated *told);
void world_wal_crash(struct repl_world *w, uint32_t node, bool is_power);
void world_wal_start(struct repl_world *w, uint32_t node);
void world_wal_trim(struct repl_world *w, uint32_t node, size_t log, size_t keep);

/* ---- repl_world_fork.c: own logs that are set back, and what walsvc makes of it ---- */
/* The own log of a machine that is off loses its end, as far as that is not set back already. */
void world_fork_set_back(struct repl_world *w, uint32_t node);
/* What is durable at a node from a position on: it is to be found at the end. */
void world_fork_note(struct repl_world *w, uint32_t node, size_t log, uint64_t from);
/* Whether the log waits for a word of others when the machine is started. */
bool world_fork_must_prove(struct repl_world *w, uint32_t node);
void world_fork_started(struct repl_world *w, uint32_t node);
void world_fork_verdict(struct repl_world *w, uint32_t node, uint64_t verdict);
void world_fork_proof_over(struct repl_world *w, uint32_t node);
/* What replaces other frames, before it is taken: SH_OK, or why not. */
enum sh_error world_fork_replace(struct repl_world *w, uint32_t node, const struct sim_store *store);
/* NULL: all have the same of that log, and nothing is kept aside any more. */
const char *world_fork_unsettled(const struct repl_world *w, uint32_t node, size_t log);
/* Everything that was durable and not set back is there, once. */
void world_fork_check(struct repl_world *w);

/* ---- repl_world_faults.c ---- */
void world_core_crash(struct repl_world *w, uint32_t node);
void world_core_start(struct repl_world *w, uint32_t node);
/* Load and random faults for a while, then calm, in which all must become equal. Returns how long that took.
 */
int64_t world_round(struct repl_world *w, int64_t faults_ns, int64_t settle_most_ns);

#endif
