/* One core of replsvc, n1, under a virtual clock; its group, its walsvc and the answers of others are what
 * the test says. Node i is "n<i>" at h<i>:4000, and its log's uuid is made of bytes i. */
#ifndef REPL_RIG_H
#define REPL_RIG_H

#include "model_log.h"
#include "repl_core.h"

enum { RIG_ACTIONS_MAX = 4096, RIG_BODIES_MAX = 32768, RIG_BASE_PORT = 4000 };

struct repl_rig {
    struct repl_core *core;
    int64_t now_ns;
    int64_t compare_interval_ns; /* of the next core */
    struct id16 boot;
    struct repl_member members[REPL_MEMBERS_MAX];
    size_t member_count;
    struct held_log held[REPL_LOGS_MAX];
    size_t held_count;
    struct repl_logs logs;                       /* the rest of what walsvc says */
    struct repl_action actions[RIG_ACTIONS_MAX]; /* not yet taken, the oldest first */
    size_t action_count;
    struct buf bodies[RIG_BODIES_MAX]; /* that stores hold on to */
    size_t body_count;
    uint64_t ticks;
};

struct id16 peer_log(unsigned node);
/* n1 in a group of so many, all up; walsvc holds its own log, empty. */
void peer_open(struct repl_rig *rig, unsigned nodes);
void peer_close(struct repl_rig *rig);
/* Forgets the core, as a crash does; the new one is told nothing yet. */
void peer_restart(struct repl_rig *rig);

struct repl_member *peer_member(struct repl_rig *rig, unsigned node);
struct repl_member *peer_add_member(struct repl_rig *rig, unsigned node);
void peer_remove_member(struct repl_rig *rig, unsigned node);
/* What a member's heartbeat says of a log. */
void peer_watermark(struct repl_rig *rig, unsigned node, unsigned log, struct log_chain durable);
/* What walsvc says of a log. */
void peer_hold(struct repl_rig *rig, unsigned log, struct log_chain durable, uint64_t first_lsn);

/* Tells the core. */
void peer_tell_members(struct repl_rig *rig);
void peer_tell_logs(struct repl_rig *rig);
/* walsvc's register of closed logs. */
void peer_tell_closed(struct repl_rig *rig, const struct repl_closed_log *closed, size_t count);
/* walsvc's answer to REPL_GONE. */
void peer_gone_told(struct repl_rig *rig, bool taken);
/* Time goes on; each tick that is due on the way happens, and must move the due time on. */
void peer_wait(struct repl_rig *rig, int64_t ms);

/* ---- actions ---- */
/* The oldest of the kind, which is taken out; it must exist. */
struct repl_action peer_expect(struct repl_rig *rig, enum repl_action_kind kind);
/* The oldest fetch, which must be for that log and to that node. */
struct repl_action peer_expect_fetch(struct repl_rig *rig, unsigned log, unsigned node);
struct repl_action peer_expect_notice(struct repl_rig *rig, const char *text);
size_t peer_count(const struct repl_rig *rig, enum repl_action_kind kind);
/* Fetches of a log. */
size_t peer_fetches(const struct repl_rig *rig, unsigned log);
/* Forgets what was not taken. */
void peer_clear(struct repl_rig *rig);

/* ---- answers ---- */
bool peer_reply(struct repl_rig *rig, const struct repl_action *fetch, const struct msg_fetch_reply *reply);
/* What a holder of this log answers. */
bool peer_answer(struct repl_rig *rig, const struct repl_action *fetch, const struct model_log *source);
/* Only the state, of a log that ends there. */
void peer_reply_state(struct repl_rig *rig, const struct repl_action *fetch, enum log_copy_state state,
                      struct log_chain at);
void peer_error(struct repl_rig *rig, const struct repl_action *fetch, enum sh_error code);
void peer_fail(struct repl_rig *rig, const struct repl_action *fetch);
/* walsvc: the copy is durable so far. */
void peer_stored(struct repl_rig *rig, const struct repl_action *store, struct log_chain durable);
void peer_not_stored(struct repl_rig *rig, const struct repl_action *store, enum sh_error code);

/* A member's answer to REPL_ASK_DIGESTS: any message. */
void peer_tell(struct repl_rig *rig, const struct repl_action *ask, uint32_t type, const void *message);
/* What is here, as REPL_COMPARE asks; walsvc's answer to REPL_LOOK. */
void peer_digests(struct repl_rig *rig, const struct repl_digest *own, size_t count);
void peer_looked(struct repl_rig *rig, uint32_t type, const void *message);

/* Takes the oldest REPL_LOOK_BACK, and answers from what is here; so it does with the oldest REPL_FIND_FORK.
 */
void peer_look_back(struct repl_rig *rig, const struct model_log *here);
void peer_compare(struct repl_rig *rig, const struct model_log *here);

/* ---- others ask ---- */
/* A fetch of n1's log was answered so. */
void peer_served(struct repl_rig *rig, unsigned node, enum log_copy_state state);
void peer_ask_digests(struct repl_rig *rig, uint64_t token, unsigned node, const struct msg_digests *digests);
void peer_ask(struct repl_rig *rig, uint64_t token, unsigned node, const struct msg_fetch *fetch);
/* A fetch of n1's log or another from that place. */
struct msg_fetch peer_fetch(unsigned from, unsigned log, struct log_chain at);
/* The shell has refused his message. */
void peer_stranger(struct repl_rig *rig, enum repl_stranger reason, const char *sender);
void peer_position(struct repl_rig *rig, unsigned node, uint64_t lsn, uint64_t end);
/* The same, with the checksum of the last frame. */
void peer_position_at(struct repl_rig *rig, unsigned node, struct log_chain place);
/* A fetch of the node's, from that place in n1's log, was answered by what follows there. */
void peer_prove(struct repl_rig *rig, unsigned node, struct log_chain place);

struct log_chain peer_place(uint64_t lsn, uint64_t position);
const struct repl_counters *peer_counters(const struct repl_rig *rig);

#endif
