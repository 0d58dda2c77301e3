/* What the cores of a simulated group say to each other, and what nodes know of each other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "repl_world.h"
#include "repl_world_disk.h"

enum { TYPE_HEARTBEAT = 1, TYPE_FAILED = 2 }; /* types of the simulation's own */
#define DOWN_NS (15 * NS_PER_S)

/* Before each body. */
struct wire {
    uint32_t type, from, life;
    unsigned slot;
    uint64_t serial;
};

static void send_wire(struct repl_world *w, uint32_t to, const struct wire *wire, struct slice body)
{
    struct buf bytes = {0};
    buf_append(&bytes, wire, sizeof *wire);
    buf_append(&bytes, body.data, body.len);
    net_send(&w->net, wire->from, to, 0, buf_slice(&bytes));
    buf_free(&bytes);
}

static void send_message(struct repl_world *w, uint32_t to, const struct wire *wire, const void *message)
{
    struct buf body = {0};
    msg_encode(wire->type, message, &body);
    send_wire(w, to, wire, buf_slice(&body));
    buf_free(&body);
}

static uint32_t node_of(const struct repl_world *w, const char *host)
{
    for (uint32_t i = 0; i < w->count; i++)
        if (strcmp(w->nodes[i].id, host) == 0)
            return i;
    world_fail("a message to %s, which is nobody", host);
}

/* ---- fetches ---- */

/* A connection that broke is noticed now and then before or after the answer is there. */
static void send_fetch(struct repl_world *w, uint32_t node, const struct repl_action *a)
{
    struct repl_node *n = &w->nodes[node];
    struct wire wire = {MSG_fetch, node, n->life, a->slot, a->serial};
    uint32_t to = node_of(w, a->host);
    if (a->port != WORLD_PORT + 4 || a->fetch.most_bytes > REPL_FETCH_BYTES)
        world_fail("%s sends a fetch for %llu bytes to port %u", n->id,
                   (unsigned long long)a->fetch.most_bytes, a->port);
    send_message(w, to, &wire, &a->fetch);
    if (!net_chance(&w->net, w->net.loss_percent))
        return;
    wire.type = TYPE_FAILED;
    net_send(&w->net, node, node, 0, slice_of(&wire, sizeof wire));
}

static void forget_asked(struct repl_node *n, size_t index)
{
    n->asked[index] = n->asked[--n->asked_count];
}

/* Of each follower and log. */
static void check_one_is_held(const struct repl_node *n)
{
    for (size_t i = 0; i < n->asked_count; i++)
        for (size_t k = 0; k < i; k++)
            if (n->asked[i].from == n->asked[k].from && id16_equal(n->asked[i].log, n->asked[k].log))
                world_fail("%s holds two fetches of one follower for a log", n->id);
}

static void on_fetch(struct repl_world *w, uint32_t node, const struct wire *wire, struct slice body)
{
    struct repl_node *n = &w->nodes[node];
    struct msg_fetch fetch;
    if (n->core == NULL) {
        struct wire failed = *wire;
        failed.type = TYPE_FAILED;
        failed.from = node;
        send_wire(w, wire->from, &failed, (struct slice){0});
        return;
    }
    if (msg_decode(MSG_fetch, body, &fetch) != SH_OK)
        world_fail("a fetch that cannot be read");
    if (n->asked_count == ASKED_MAX)
        world_fail("%s holds %zu fetches", n->id, n->asked_count);
    uint64_t token = ++w->tokens;
    n->asked[n->asked_count++] = (struct sim_asked){.token = token,
                                                    .serial = wire->serial,
                                                    .from = wire->from,
                                                    .life = wire->life,
                                                    .slot = wire->slot,
                                                    .log = fetch.log};
    repl_core_asked(n->core, w->net.now_ns + n->clock_ns, token, slice_str(w->nodes[wire->from].id), &fetch);
    world_after_call(w, node);
    check_one_is_held(n);
}

static void answer(struct repl_world *w, uint32_t node, uint64_t token, uint32_t type, const void *message)
{
    struct repl_node *n = &w->nodes[node];
    for (size_t i = 0; i < n->asked_count; i++) {
        struct sim_asked *a = &n->asked[i];
        if (a->token != token)
            continue;
        struct wire wire = {type, node, a->life, a->slot, a->serial};
        uint32_t to = a->from;
        forget_asked(n, i);
        send_message(w, to, &wire, message);
        return;
    }
    world_fail("%s answers a fetch twice, or one that was never asked", n->id);
}

static void refuse_with(struct repl_world *w, uint32_t node, uint64_t token, enum sh_error code,
                        const char *text)
{
    const struct msg_error error = {.code = code, .text = slice_str(text)};
    answer(w, node, token, MSG_error, &error);
}

static void serve(struct repl_world *w, uint32_t node, const struct repl_action *a)
{
    struct repl_node *n = &w->nodes[node];
    struct buf out = {0}, given_up = {0};
    struct msg_fetch_reply reply;
    size_t log = 0;
    while (log < w->log_count && !id16_equal(n->logs[log].id, a->serve.log))
        log++;
    if (log == w->log_count || !n->holds[log])
        world_fail("%s serves a log that it does not hold", n->id);
    if (a->serve.durable.position > model_log_durable(&n->logs[log]).position) {
        if (!w->has_forks)
            world_fail("%s serves beyond its durable end", n->id);
        refuse_with(w, node, a->token, SH_CORRUPT, "what was there has just been replaced");
        return;
    }
    model_log_serve(&n->logs[log], &a->serve, &out, &reply);
    repl_core_given_up(n->core, a->serve.log, (enum log_copy_state)reply.state, &given_up);
    reply.given_up = buf_slice(&given_up);
    if (n->is_wal_up)
        world_disk_serve(n, log, &a->serve, &reply);
    if (!a->serve.anew && !a->serve.repair && (reply.state == LOG_COPY_FRAMES || reply.state == LOG_COPY_END))
        repl_core_proved(n->core, a->serve.log, a->serve.by, &a->serve.from);
    answer(w, node, a->token, MSG_fetch_reply, &reply);
    if (!a->serve.anew && !a->serve.repair)
        repl_core_served(n->core, w->net.now_ns + n->clock_ns, slice_str(a->id), a->serve.log,
                         (enum log_copy_state)reply.state);
    buf_free(&out);
    buf_free(&given_up);
}

/* What is here of a log: the files, whether walsvc runs or not. */
static const struct model_log *log_here(const struct repl_world *w, uint32_t node, struct id16 id)
{
    size_t log = 0;
    while (log < w->log_count && !id16_equal(w->nodes[node].logs[log].id, id))
        log++;
    if (log == w->log_count)
        world_fail("%s looks into a log that there is not", w->nodes[node].id);
    return &w->nodes[node].logs[log];
}

static void look_back(struct repl_world *w, uint32_t node, const struct repl_action *a)
{
    struct repl_node *n = &w->nodes[node];
    struct log_chain begins;
    bool found = model_log_begins(log_here(w, node, a->back.log), a->back.position, &begins);
    repl_core_begins(n->core, w->net.now_ns + n->clock_ns, a->serial, found ? &begins : NULL);
}

static void find_fork(struct repl_world *w, uint32_t node, const struct repl_action *a)
{
    struct repl_node *n = &w->nodes[node];
    struct repl_fork fork;
    bool good = model_log_parts(log_here(w, node, a->parts.log), &a->parts, &fork);
    repl_core_parted(n->core, w->net.now_ns + n->clock_ns, a->serial, good ? &fork : NULL);
}

/* A source that is not to be trusted: any byte of its answer may be another one. */
static void garble(struct repl_world *w, uint8_t *body, size_t len)
{
    if (len == 0 || net_random(&w->net, 1000) >= w->garble_permille)
        return;
    size_t front = len < 120 ? len : 120;
    size_t at = net_random(&w->net, net_chance(&w->net, 50) ? front : len);
    body[at] ^= (uint8_t)(1u << net_random(&w->net, 8));
    w->garbled++;
}

static void on_answer(struct repl_world *w, uint32_t node, const struct wire *wire, uint8_t *body, size_t len)
{
    struct repl_node *n = &w->nodes[node];
    if (n->core == NULL || wire->life != n->life)
        return;
    garble(w, body, len);
    repl_core_fetched(n->core, w->net.now_ns + n->clock_ns, wire->slot, wire->serial, wire->type,
                      slice_of(body, len));
    world_after_call(w, node); /* which copies what is to be stored */
}

static void on_failed(struct repl_world *w, uint32_t node, const struct wire *wire)
{
    struct repl_node *n = &w->nodes[node];
    if (n->core == NULL || wire->life != n->life)
        return;
    repl_core_fetch_failed(n->core, w->net.now_ns + n->clock_ns, wire->slot, wire->serial);
    world_after_call(w, node);
}

/* ---- positions ---- */

static void send_position(struct repl_world *w, uint32_t node, const struct repl_action *a)
{
    const struct wire wire = {.type = MSG_position, .from = node};
    if (a->port != WORLD_PORT + 3)
        world_fail("%s sends a position to port %u", w->nodes[node].id, a->port);
    send_message(w, node_of(w, a->host), &wire, &a->position);
}

static void on_position(struct repl_world *w, uint32_t node, const struct wire *wire, struct slice body)
{
    struct repl_node *n = &w->nodes[node];
    struct msg_position position;
    if (n->core == NULL)
        return;
    if (msg_decode(MSG_position, body, &position) != SH_OK)
        world_fail("a position that cannot be read");
    repl_core_position(n->core, w->net.now_ns + n->clock_ns, slice_str(w->nodes[wire->from].id), &position);
    world_after_call(w, node);
}

/* ---- what nodes know of each other ---- */

void world_heartbeat(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    const struct wire wire = {.type = TYPE_HEARTBEAT, .from = node};
    struct sim_view view = {0};
    for (size_t log = 0; log < w->log_count && n->is_on; log++) {
        struct log_chain durable = model_log_durable(&n->logs[log]);
        if (n->holds[log])
            view.watermarks[view.count++] =
                (struct repl_watermark){n->logs[log].id, durable.next_lsn - 1, durable.position};
    }
    for (uint32_t to = 0; to < w->count && n->is_on; to++)
        if (to != node)
            send_wire(w, to, &wire, slice_of(&view, sizeof view));
    world_due(w, node, DUE_HEARTBEAT, NS_PER_S / 2 + (int64_t)net_random(&w->net, NS_PER_S));
}

static void on_heartbeat(struct repl_world *w, uint32_t node, const struct wire *wire, struct slice body)
{
    struct sim_view *view = &w->nodes[node].views[wire->from];
    if (!w->nodes[node].is_on || body.len != sizeof *view)
        return;
    memcpy(view, body.data, sizeof *view);
    view->heard_ns = w->net.now_ns;
}

/* What membersvc tells replsvc. */
void world_view(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    struct repl_member *members = xcalloc(WORLD_NODES_MAX, sizeof *members);
    size_t count = 0;
    if (n->core == NULL) {
        free(members);
        return;
    }
    for (uint32_t i = 0; i < w->count; i++) {
        const struct sim_view *view = &n->views[i];
        struct repl_member *m = &members[count];
        if (i == node)
            continue;
        snprintf(m->id, sizeof m->id, "%s", w->nodes[i].id);
        snprintf(m->host, sizeof m->host, "%s", w->nodes[i].id);
        m->port = WORLD_PORT;
        m->log = w->nodes[i].logs[i].id;
        m->up = w->net.now_ns - view->heard_ns < DOWN_NS;
        memcpy(m->watermarks, view->watermarks, sizeof view->watermarks);
        m->watermark_count = view->count;
        count++;
    }
    repl_core_members(n->core, w->net.now_ns + n->clock_ns, members, count);
    free(members);
    world_after_call(w, node);
    world_due(w, node, DUE_VIEW, NS_PER_S / 10 + (int64_t)net_random(&w->net, NS_PER_S));
}

/* ---- all of it ---- */

void world_receive(struct repl_world *w, const struct net_event *event)
{
    struct wire wire;
    memcpy(&wire, event->bytes, sizeof wire);
    uint8_t *bytes = event->bytes + sizeof wire;
    size_t len = event->len - sizeof wire;
    if (wire.type == MSG_fetch)
        on_fetch(w, event->node, &wire, slice_of(bytes, len));
    else if (wire.type == MSG_fetch_reply || wire.type == MSG_error)
        on_answer(w, event->node, &wire, bytes, len);
    else if (wire.type == MSG_position)
        on_position(w, event->node, &wire, slice_of(bytes, len));
    else if (wire.type == TYPE_FAILED)
        on_failed(w, event->node, &wire);
    else
        on_heartbeat(w, event->node, &wire, slice_of(bytes, len));
}

static void do_action(struct repl_world *w, uint32_t node, const struct repl_action *a)
{
    switch (a->kind) {
    case REPL_FETCH:
        send_fetch(w, node, a);
        break;
    case REPL_STORE:
        world_wal_store(w, node, a);
        break;
    case REPL_SERVE:
        serve(w, node, a);
        break;
    case REPL_REFUSE:
        refuse_with(w, node, a->token, a->error, a->text);
        break;
    case REPL_LOOK_BACK:
        look_back(w, node, a);
        break;
    case REPL_FIND_FORK:
        find_fork(w, node, a);
        break;
    case REPL_OWN_LOG:
        world_fork_verdict(w, node, a->verdict);
        break;
    case REPL_POSITION:
        send_position(w, node, a);
        break;
    case REPL_REPLICATED:
        world_wal_replicated(w, node, &a->replicated);
        break;
    case REPL_ASK_LOGS:
        world_due(w, node, DUE_PUMP, NS_PER_MS / 10);
        break;
    case REPL_NOTICE:
        if (w->is_verbose)
            printf("%.3f %s: %s %s %s\n", (double)w->net.now_ns / 1e9, w->nodes[node].id, a->text, a->id,
                   a->detail);
        break;
    default: /* late answers come all the same; nothing is damaged; holds are put at will */
        break;
    }
}

void world_after_call(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    struct repl_action action;
    while (repl_core_next_action(n->core, &action))
        do_action(w, node, &action);
    int64_t after_ns = repl_core_due_ns(n->core) - n->clock_ns - w->net.now_ns;
    world_due(w, node, DUE_TICK, after_ns > 0 ? after_ns : 0);
}
