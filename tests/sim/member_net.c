/* Heap and faults of the network. All that happens follows from the seed. */
#include "member_net.h"

#include <stdlib.h>
#include <string.h>

#include "clock.h"

/* ------------------------------------------------------------ chance */

/* splitmix64 */
static uint64_t next_random(struct net *net)
{
    uint64_t z = net->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t net_random(struct net *net, uint64_t below)
{
    return next_random(net) % below;
}

bool net_chance(struct net *net, unsigned percent)
{
    return percent > 0 && net_random(net, 100) < percent;
}

/* ------------------------------------------------------------ the heap */

static bool is_before(const struct net_event *a, const struct net_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void push(struct net *net, struct net_event event)
{
    if (net->count == net->cap) {
        net->cap = net->cap == 0 ? 1024 : 2 * net->cap;
        net->heap = xrealloc(net->heap, net->cap * sizeof *net->heap);
    }
    event.order = net->order++;
    size_t at = net->count++;
    for (; at > 0 && is_before(&event, &net->heap[(at - 1) / 2]); at = (at - 1) / 2)
        net->heap[at] = net->heap[(at - 1) / 2];
    net->heap[at] = event;
}

static struct net_event pop(struct net *net)
{
    struct net_event first = net->heap[0], last = net->heap[--net->count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= net->count)
            break;
        if (child + 1 < net->count && is_before(&net->heap[child + 1], &net->heap[child]))
            child++;
        if (!is_before(&net->heap[child], &last))
            break;
        net->heap[at] = net->heap[child];
        at = child;
    }
    net->heap[at] = last;
    return first;
}

bool net_next(struct net *net, int64_t end_ns, struct net_event *out)
{
    if (net->count == 0 || net->heap[0].at_ns > end_ns) {
        net->now_ns = end_ns;
        return false;
    }
    *out = pop(net);
    net->now_ns = out->at_ns;
    if (out->bytes != NULL) {
        net->in_flight_bytes -= out->len;
        net->delivered++;
    }
    return true;
}

void net_free(struct net *net)
{
    for (size_t i = 0; i < net->count; i++)
        free(net->heap[i].bytes);
    free(net->heap);
}

void net_tick(struct net *net, uint32_t node, int64_t at_ns)
{
    push(net, (struct net_event){.at_ns = at_ns, .node = node});
}

/* ------------------------------------------------------------ what happens to a message */

static bool flaps_now(const struct net *net, uint32_t from, uint32_t to)
{
    for (size_t i = 0; i < net->flap_count; i++) {
        const struct net_flap *f = &net->flaps[i];
        bool is_it = (f->a == from && f->b == to) || (f->a == to && f->b == from);
        if (is_it && net->now_ns / f->period_ns % 2 == 1)
            return true;
    }
    return false;
}

static bool is_blocked(const struct net *net, uint32_t from, uint32_t to)
{
    if (net->is_cut && net->side[from] != net->side[to] && (!net->one_way || net->side[from] == 1))
        return true;
    return net->flap_count > 0 && flaps_now(net, from, to);
}

/* Mostly below a millisecond, one of a hundred up to 50 ms, and what is reordered up to half a second. */
static int64_t latency_ns(struct net *net)
{
    int64_t ns = 200 * NS_PER_US + (int64_t)net_random(net, 800) * NS_PER_US;
    if (net_chance(net, 1))
        ns += (int64_t)net_random(net, 50 * NS_PER_MS);
    if (net_chance(net, net->reorder_percent))
        ns += (int64_t)net_random(net, 500 * (uint64_t)NS_PER_MS);
    return ns;
}

void net_send(struct net *net, uint32_t from, uint32_t to, uint32_t move, struct slice message)
{
    unsigned copies = net_chance(net, net->duplicate_percent) ? 2 : 1;
    for (unsigned i = 0; i < copies; i++) {
        if (is_blocked(net, from, to) || net_chance(net, net->loss_percent)) {
            net->lost++;
            continue;
        }
        uint8_t *bytes = xmalloc(message.len + 1);
        memcpy(bytes, message.data, message.len);
        net->in_flight_bytes += message.len;
        push(net, (struct net_event){.at_ns = net->now_ns + latency_ns(net),
                                     .node = to,
                                     .move = move,
                                     .len = (uint32_t)message.len,
                                     .bytes = bytes});
    }
}
