/* A cluster of membersvc cores in one process (docs/testing.md): nodes with clocks, disks and addresses, what
 * an operator and the world do to them, and what the simulation knows to be true of each. */
#ifndef MEMBER_WORLD_H
#define MEMBER_WORLD_H

#include "clock.h"
#include "histogram.h"
#include "member_core.h"
#include "member_net.h"

enum { WORLD_WAITING_MAX = 4096, WORLD_TYPES = 128, WORLD_PORT = 4000 };

/* What the cluster was told of an id. */
enum sim_membership { SIM_STRANGER, SIM_MEMBER, SIM_LEFT };

struct sim_node {
    struct config_node where; /* as its own topology file has it now */
    uint32_t moves;
    struct member_core *core; /* NULL: its process does not run */
    struct id16 log;
    struct buf saved; /* data/member */
    uint64_t saved_next, saved_version;
    int64_t saved_ns;
    /* The truth. */
    enum sim_membership membership;
    uint64_t generation;
    bool was_asked;      /* for a join or leave since all was settled: perhaps nobody else knows of it */
    bool is_twin;        /* a second machine with the id of a member */
    bool other_identity; /* wiped, and not yet joined again */
    bool forgot;         /* it lost its state since it was last joined */
    bool wants_file;     /* its topology file names none of those who are there: it is given another */
    int64_t well_since_ns;
    /* Its clocks against virtual time. */
    int64_t began_ns, mono_offset_ns, wall_offset_ms;
    int64_t mono_ppm, wall_ppm;
    int64_t tick_at_ns;
    bool is_paused;
    struct slice waiting[WORLD_WAITING_MAX]; /* came while it was paused */
    size_t waiting_count;
    /* Of the running core, as last looked at. */
    struct id16 series;
    uint64_t next_event;
    uint64_t suspicions;
};

/* Until when the live nodes have shown an event about a node. */
struct watch {
    bool is_on;
    uint32_t subject;
    uint32_t kinds; /* bits of enum member_event_kind */
    uint64_t generation;
    int64_t began_ns, first_ns, last_ns;
    bool waits_for[NET_NODES_MAX];
    size_t left;
};

struct traffic {
    uint64_t messages[WORLD_TYPES], bytes[WORLD_TYPES];
    int64_t node_ns; /* time of running nodes, added up */
};

struct world {
    struct net net;
    const char *scenario;
    uint32_t founders, count; /* nodes 0..founders-1 stand in the topology file; count: all there ever were */
    struct sim_node *nodes[NET_NODES_MAX];
    struct config_node *first; /* the topology file of the founders */
    struct member_timing timing;
    bool is_verbose;
    int64_t calm_since_ns;  /* since then the network does nothing but to lose, duplicate and reorder */
    int64_t last_change_ns; /* node join or leave */
    uint16_t *left_seen;    /* [observer][subject]: highest generation that the observer showed as left */
    struct watch watch;
    struct traffic traffic;
    uint64_t events, false_suspicions, false_downs, ticks, crashes, faults, memory_most;
};

/* Prints what is wrong and the command that repeats it, and ends the process. */
__attribute__((format(printf, 1, 2), noreturn)) void world_fail(const char *format, ...);

void world_open(struct world *w, uint32_t founders, uint64_t seed);
void world_close(struct world *w);
void world_run_for(struct world *w, int64_t ns);

/* A node that nobody has joined, with an id of its own; its file names a few members and itself. */
uint32_t world_add(struct world *w);
/* A second machine with the id of a member, and with an address and a log of its own. */
uint32_t world_add_twin(struct world *w, uint32_t node);
/* Starts its process on what is saved. */
void world_start(struct world *w, uint32_t node);
/* Ends it at once; what it had not saved is lost, by chance. */
void world_crash(struct world *w, uint32_t node);
/* The disk is written now. */
void world_save(struct world *w, uint32_t node);
/* data/member is lost, or the whole disk (another log); the process does not run. */
void world_lose_state(struct world *w, uint32_t node);
void world_wipe(struct world *w, uint32_t node);
void world_move(struct world *w, uint32_t node);
void world_pause(struct world *w, uint32_t node);
void world_resume(struct world *w, uint32_t node);
/* Whatever the network does against some nodes ends. */
void world_heal(struct world *w);

/* node join and node leave, asked of a member. */
enum sh_error world_join(struct world *w, uint32_t at, uint32_t node, bool replace);
enum sh_error world_leave(struct world *w, uint32_t at, uint32_t node);

/* It runs, and is a member as far as it can know. */
bool world_is_live(const struct world *w, uint32_t node);
size_t world_live_count(const struct world *w);
/* A live one, other than `except`; they must exist. */
uint32_t world_any_live(struct world *w, uint32_t except);
struct member_time world_time(const struct world *w, const struct sim_node *n);

/* ---- member_watch.c: what nodes show, compared with the truth ---- */
enum { WATCH_NOBODY = UINT32_MAX };
/* Of all live nodes but `except`. */
void watch_begin(struct world *w, uint32_t subject, uint32_t kinds, uint64_t generation);
/* Takes a node's new events. */
void watch_events(struct world *w, uint32_t node);
/* Counts a message that a node sends. */
void watch_message(struct world *w, struct slice message);
/* Whether all live nodes have the same view, and it is the truth. Otherwise says what isn't. */
bool watch_is_settled(struct world *w, char *why, size_t size);
/* Runs until it is settled, at most for `most_ns`; returns how long it took. */
int64_t watch_settle(struct world *w, int64_t most_ns);
/* What must be true at any time. */
void watch_bounds(struct world *w);

/* ---- member_faults.c ---- */
/* Names of faults, separated by commas, or "none"; false: there is one that doesn't exist. */
bool faults_parse(const char *list, uint32_t *bits);
/* What can be asked for, as a list. */
const char *faults_all(void);
/* Random faults for a while, then none: all must settle. Returns how long that took. */
int64_t faults_round(struct world *w, uint32_t bits, int64_t settle_most_ns);

#endif
