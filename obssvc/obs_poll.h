/* Asks the node and its supervisor each second, on two threads of its own, and keeps their last answers:
 * whoever asks obssvc is answered at once, whatever hangs elsewhere.
 *
 * - of the node: status, nodes, replicas by libshanghai at run/query; what happens in the cluster, as it
 * comes
 * - of the supervisor: its tree, and when that has changed its obituaries, at run/supervisor.sock
 *
 * Events go to the store. Nothing here is fatal: an answer that does not come makes the kept one old. */
#ifndef OBSSVC_OBS_POLL_H
#define OBSSVC_OBS_POLL_H

#include "mp.h"
#include "shanghai.h"

struct obs;
struct obs_poll;

enum { OBS_OLD_MS = 5000 /* an answer of that age is none */ };

/* JSON. */
enum obs_kept {
    OBS_STATUS, /* the members of the object, without its braces */
    OBS_NODES,
    OBS_REPLICAS,
    OBS_TREE,       /* an array */
    OBS_OBITUARIES, /* an array, the newest first */
    OBS_KEPT
};

struct obs_poll *obs_poll_open(struct obs *obs);
/* Waits for what is under way: a second or two. */
void obs_poll_close(struct obs_poll *poll);

/* Appends a kept answer. False: there is none that is young enough. */
bool obs_poll_read(struct obs_poll *poll, enum obs_kept kept, struct buf *out, int64_t *age_ms);

/* How the node is, as it answered last. */
struct obs_condition {
    bool has_status, has_nodes; /* else unknown: it does not answer */
    enum sh_writes writes;
    enum sh_node_state state;
};
void obs_poll_condition(struct obs_poll *poll, struct obs_condition *out);

/* Appends what is told of services by telemetry_gather, and returns how many series. */
uint32_t obs_poll_gather(struct obs_poll *poll, msgpack_packer *pk);

#endif
