/* A few cores of membersvc under a virtual clock: messages take a millisecond, or are lost where a link is
 * cut. Node i is "n<i + 1>" at h<i + 1>:4000. */
#ifndef MEMBER_RIG_H
#define MEMBER_RIG_H

#include "member_core.h"

enum { RIG_NODES_MAX = 16, RIG_PORT = 4000 };

struct cores_message {
    int64_t at_ns;
    uint32_t from, to;
    struct buf bytes;
};

struct cores_node {
    struct config_node where, list[RIG_NODES_MAX];
    size_t list_count;
    struct id16 log;
    struct member_core *core; /* NULL: it doesn't run */
    struct buf saved;
    int64_t wall_offset_ms;
    bool is_paused;
    uint64_t sent[128]; /* messages by type */
};

struct member_rig {
    struct cores_node nodes[RIG_NODES_MAX];
    uint32_t count;
    int64_t now_ns;
    uint64_t random;
    struct member_timing timing;
    bool cut[RIG_NODES_MAX][RIG_NODES_MAX]; /* [from][to] */
    unsigned loss_percent;
    struct cores_message *on_way;
    size_t on_way_count, on_way_cap;
    struct buf notices; /* text of all notices, a line each: level, id, text, detail */
};

/* `count` nodes with one topology file that names them all; none runs. */
void cores_open(struct member_rig *rig, uint32_t count, uint64_t seed);
void cores_close(struct member_rig *rig);
/* A further node, whose file names itself and the first node; returns its number. */
uint32_t cores_add(struct member_rig *rig);
/* On what it has saved. */
void cores_start(struct member_rig *rig, uint32_t node);
enum sh_error cores_try_start(struct member_rig *rig, uint32_t node, char text[MEMBER_TEXT_MAX]);
void cores_start_all(struct member_rig *rig);
/* Ends it; what it knew is saved. */
void cores_stop(struct member_rig *rig, uint32_t node);
/* Another log, and nothing saved; it doesn't run. */
void cores_wipe(struct member_rig *rig, uint32_t node);
void cores_run(struct member_rig *rig, int64_t ms);
/* Runs until it holds, at most so long. */
bool cores_until(struct member_rig *rig, int64_t most_ms, bool (*holds)(struct member_rig *rig));
struct member_time cores_time(const struct member_rig *rig, uint32_t node);

/* Cuts or mends both directions between a node and all others. */
void cores_isolate(struct member_rig *rig, uint32_t node, bool is_cut);
/* A message to a node, from outside. */
void cores_inject(struct member_rig *rig, uint32_t to, uint32_t type, const void *message, const char *sender,
                  struct id16 session, uint64_t version, const uint8_t cluster[CLUSTER_ID_BYTES]);
/* The record of a node at another one; status MEMBER_LEFT + 1: there is none. */
struct member_record cores_record(const struct member_rig *rig, uint32_t at, uint32_t of);
struct member_view cores_view(const struct member_rig *rig, uint32_t at, uint32_t of);
/* All running nodes are members, up for each other, and their views are the same. */
bool cores_is_whole(struct member_rig *rig);
/* Events of this kind about that node, that `at` keeps. */
unsigned cores_events(const struct member_rig *rig, uint32_t at, uint32_t of, enum member_event_kind kind);
/* node join of a node, with its address, asked at another. */
enum sh_error cores_join(struct member_rig *rig, uint32_t at, uint32_t node, bool replace);
enum sh_error cores_leave(struct member_rig *rig, uint32_t at, uint32_t node);
bool cores_has_notice(struct member_rig *rig, const char *text);

#endif
