/* The virtual network and clock under the membership simulation: a heap of what is to come, in nanoseconds
 * of virtual time, and what the network does to a message. Nodes are numbers here; an address is a node and
 * how often it has moved, so that one that moved is not found where it was. */
#ifndef MEMBER_NET_H
#define MEMBER_NET_H

#include "buf.h"

enum { NET_NODES_MAX = 1200, NET_FLAPS_MAX = 8 };

struct net_event {
    int64_t at_ns;
    uint64_t order; /* of the same time the one that was put in first */
    uint32_t node, move;
    uint32_t len;
    uint8_t *bytes; /* NULL: a tick of the node */
};

struct net {
    int64_t now_ns;
    uint64_t random;
    struct net_event *heap;
    size_t count, cap;
    uint64_t order;
    unsigned loss_percent, duplicate_percent, reorder_percent;
    /* Between nodes of different sides nothing passes; one_way: nothing from side 1 to side 0. */
    bool is_cut, one_way;
    uint8_t side[NET_NODES_MAX];
    /* Links that are down in every other period. */
    struct net_flap {
        uint32_t a, b;
        int64_t period_ns;
    } flaps[NET_FLAPS_MAX];
    size_t flap_count;
    uint64_t in_flight_bytes, delivered, lost;
};

/* A number below `below`, all by the seed. */
uint64_t net_random(struct net *net, uint64_t below);
bool net_chance(struct net *net, unsigned percent);

void net_send(struct net *net, uint32_t from, uint32_t to, uint32_t move, struct slice message);
void net_tick(struct net *net, uint32_t node, int64_t at_ns);
/* The next event that is due until end_ns, with the time moved on to it; its bytes are the caller's. False:
 * none; the time is end_ns. */
bool net_next(struct net *net, int64_t end_ns, struct net_event *out);
void net_free(struct net *net);

#endif
