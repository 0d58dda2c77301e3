/* A few cores of membersvc under a virtual clock. */
#include "member_rig.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DELAY_MS = 1, WALL_MS = 1700000000 };

static const uint8_t cores_cluster[CLUSTER_ID_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8};

static uint64_t draw(struct member_rig *rig)
{
    rig->random = rig->random * 6364136223846793005u + 1442695040888963407u;
    return rig->random >> 33;
}

static struct id16 draw_id(struct member_rig *rig)
{
    struct id16 id;
    for (unsigned i = 0; i < sizeof id.bytes; i++)
        id.bytes[i] = (uint8_t)(draw(rig) | 1);
    return id;
}

static void name(struct member_rig *rig, uint32_t node)
{
    struct cores_node *n = &rig->nodes[node];
    n->where = (struct config_node){.port = RIG_PORT, .admin_port = 9090};
    snprintf(n->where.id, sizeof n->where.id, "n%u", node + 1);
    snprintf(n->where.host, sizeof n->where.host, "h%u", node + 1);
    snprintf(n->where.group, sizeof n->where.group, "default");
    n->log = draw_id(rig);
}

void cores_open(struct member_rig *rig, uint32_t count, uint64_t seed)
{
    assert(count <= RIG_NODES_MAX);
    *rig = (struct member_rig){.count = count,
                               .now_ns = 1000 * NS_PER_S,
                               .random = seed,
                               .timing = {5 * NS_PER_S, 10 * NS_PER_S, 15 * NS_PER_S, 10000}};
    for (uint32_t i = 0; i < count; i++)
        name(rig, i);
    for (uint32_t i = 0; i < count; i++) {
        rig->nodes[i].list_count = count;
        for (uint32_t k = 0; k < count; k++)
            rig->nodes[i].list[k] = rig->nodes[k].where;
    }
}

uint32_t cores_add(struct member_rig *rig)
{
    uint32_t node = rig->count++;
    assert(node < RIG_NODES_MAX);
    name(rig, node);
    rig->nodes[node].list[0] = rig->nodes[node].where;
    rig->nodes[node].list[1] = rig->nodes[0].where;
    rig->nodes[node].list_count = 2;
    return node;
}

struct member_time cores_time(const struct member_rig *rig, uint32_t node)
{
    return (struct member_time){rig->now_ns, WALL_MS * INT64_C(1000) + rig->now_ns / NS_PER_MS +
                                                 rig->nodes[node].wall_offset_ms};
}

/* ------------------------------------------------------------ what comes out of a core */

static void put(struct member_rig *rig, uint32_t from, uint32_t to, struct slice bytes)
{
    if (rig->on_way_count == rig->on_way_cap) {
        rig->on_way_cap = rig->on_way_cap > 0 ? rig->on_way_cap * 2 : 64;
        rig->on_way = xrealloc(rig->on_way, rig->on_way_cap * sizeof *rig->on_way);
    }
    struct cores_message *m = &rig->on_way[rig->on_way_count++];
    *m = (struct cores_message){.at_ns = rig->now_ns + DELAY_MS * (int64_t)NS_PER_MS, .from = from, .to = to};
    buf_append(&m->bytes, bytes.data, bytes.len);
}

static bool at_address(const struct cores_node *n, const struct member_send *send)
{
    return strcmp(n->where.host, send->host) == 0 && n->where.port + 2 == send->port;
}

/* Everything is taken, as the shell does. */
static void take(struct member_rig *rig, uint32_t node)
{
    struct cores_node *n = &rig->nodes[node];
    struct member_send send;
    struct member_notice notice;
    while (member_core_next_notice(n->core, &notice))
        buf_printf(&rig->notices, "%d %s: %s: %s (%s)\n", notice.level, n->where.id, notice.id, notice.text,
                   notice.detail);
    while (member_core_next_send(n->core, &send)) {
        n->sent[send.message.data[2] % 128]++;
        for (uint32_t to = 0; to < rig->count; to++)
            if (at_address(&rig->nodes[to], &send))
                put(rig, node, to, send.message);
    }
}

/* ------------------------------------------------------------ lives */

enum sh_error cores_try_start(struct member_rig *rig, uint32_t node, char text[MEMBER_TEXT_MAX])
{
    struct cores_node *n = &rig->nodes[node];
    struct member_options o = {.cluster_name = "rig",
                               .nodes = n->list,
                               .node_count = n->list_count,
                               .log = n->log,
                               .boot = draw_id(rig),
                               .timing = rig->timing,
                               .seed = draw(rig)};
    memcpy(o.cluster, cores_cluster, sizeof o.cluster);
    for (size_t i = 0; i < n->list_count; i++) {
        if (strcmp(n->list[i].id, n->where.id) == 0) {
            n->list[i] = n->where;
            o.self = &n->list[i];
        }
    }
    assert(n->core == NULL);
    enum sh_error e = member_core_open(&o, cores_time(rig, node), buf_slice(&n->saved), text, &n->core);
    if (e == SH_OK)
        take(rig, node);
    return e;
}

void cores_start(struct member_rig *rig, uint32_t node)
{
    char text[MEMBER_TEXT_MAX];
    enum sh_error e = cores_try_start(rig, node, text);
    if (e != SH_OK) {
        fprintf(stderr, "n%u does not start: %s\n", node + 1, text);
        abort();
    }
}

void cores_start_all(struct member_rig *rig)
{
    for (uint32_t i = 0; i < rig->count; i++)
        if (rig->nodes[i].core == NULL)
            cores_start(rig, i);
}

void cores_stop(struct member_rig *rig, uint32_t node)
{
    struct cores_node *n = &rig->nodes[node];
    n->saved.len = 0;
    member_core_save(n->core, &n->saved);
    member_core_close(n->core);
    n->core = NULL;
    n->is_paused = false;
}

void cores_wipe(struct member_rig *rig, uint32_t node)
{
    rig->nodes[node].saved.len = 0;
    rig->nodes[node].log = draw_id(rig);
}

void cores_close(struct member_rig *rig)
{
    for (uint32_t i = 0; i < rig->count; i++) {
        if (rig->nodes[i].core != NULL)
            member_core_close(rig->nodes[i].core);
        buf_free(&rig->nodes[i].saved);
    }
    for (size_t i = 0; i < rig->on_way_count; i++)
        buf_free(&rig->on_way[i].bytes);
    free(rig->on_way);
    buf_free(&rig->notices);
}

/* ------------------------------------------------------------ time */

static int64_t next_ns(const struct member_rig *rig)
{
    int64_t at_ns = INT64_MAX;
    for (uint32_t i = 0; i < rig->count; i++) {
        const struct cores_node *n = &rig->nodes[i];
        if (n->core != NULL && !n->is_paused && member_core_due_ns(n->core) < at_ns)
            at_ns = member_core_due_ns(n->core);
    }
    for (size_t i = 0; i < rig->on_way_count; i++)
        if (rig->on_way[i].at_ns < at_ns && !rig->nodes[rig->on_way[i].to].is_paused)
            at_ns = rig->on_way[i].at_ns;
    return at_ns;
}

static void deliver(struct member_rig *rig)
{
    for (size_t i = 0; i < rig->on_way_count;) {
        struct cores_message m = rig->on_way[i];
        struct cores_node *n = &rig->nodes[m.to];
        if (m.at_ns > rig->now_ns || n->is_paused) {
            i++;
            continue;
        }
        memmove(rig->on_way + i, rig->on_way + i + 1, (--rig->on_way_count - i) * sizeof m);
        bool is_lost = rig->cut[m.from][m.to] || draw(rig) % 100 < rig->loss_percent;
        if (n->core != NULL && !is_lost) {
            member_core_receive(n->core, cores_time(rig, m.to), buf_slice(&m.bytes));
            take(rig, m.to);
        }
        buf_free(&m.bytes);
    }
}

static void step(struct member_rig *rig)
{
    for (uint32_t i = 0; i < rig->count; i++) {
        struct cores_node *n = &rig->nodes[i];
        if (n->core == NULL || n->is_paused || member_core_due_ns(n->core) > rig->now_ns)
            continue;
        member_core_tick(n->core, cores_time(rig, i));
        take(rig, i);
    }
    deliver(rig);
}

void cores_run(struct member_rig *rig, int64_t ms)
{
    int64_t end_ns = rig->now_ns + ms * NS_PER_MS;
    unsigned still = 0;
    for (;;) {
        int64_t at_ns = next_ns(rig);
        if (at_ns > end_ns)
            break;
        still = at_ns > rig->now_ns ? 0 : still + 1;
        assert(still < 1000); /* a core that is always due */
        if (at_ns > rig->now_ns)
            rig->now_ns = at_ns;
        step(rig);
    }
    rig->now_ns = end_ns;
}

bool cores_until(struct member_rig *rig, int64_t most_ms, bool (*holds)(struct member_rig *rig))
{
    const int64_t part_ms = 50;
    for (int64_t ms = 0; ms < most_ms; ms += part_ms) {
        if (holds(rig))
            return true;
        cores_run(rig, part_ms);
    }
    return holds(rig);
}

/* ------------------------------------------------------------ the network */

void cores_isolate(struct member_rig *rig, uint32_t node, bool is_cut)
{
    for (uint32_t i = 0; i < RIG_NODES_MAX; i++)
        if (i != node)
            rig->cut[node][i] = rig->cut[i][node] = is_cut;
}

void cores_inject(struct member_rig *rig, uint32_t to, uint32_t type, const void *message, const char *sender,
                  struct id16 session, uint64_t version, const uint8_t cluster[CLUSTER_ID_BYTES])
{
    struct buf bytes = {0};
    struct msg_envelope e = {.type = type,
                             .cluster = slice_of(cluster != NULL ? cluster : cores_cluster, CLUSTER_ID_BYTES),
                             .sender = slice_str(sender),
                             .session = session};
    msg_pack_envelope(&bytes, &e);
    bytes.data[1] = (uint8_t)version;
    msg_encode(type, message, &bytes);
    member_core_receive(rig->nodes[to].core, cores_time(rig, to), buf_slice(&bytes));
    take(rig, to);
    buf_free(&bytes);
}

/* ------------------------------------------------------------ questions */

struct member_view cores_view(const struct member_rig *rig, uint32_t at, uint32_t of)
{
    const struct member_core *core = rig->nodes[at].core;
    struct member_view view = {0};
    for (size_t i = 0; i < member_core_count(core); i++) {
        member_core_view(core, cores_time(rig, at), i, &view);
        if (strcmp(view.record->id, rig->nodes[of].where.id) == 0)
            return view;
    }
    return (struct member_view){0};
}

struct member_record cores_record(const struct member_rig *rig, uint32_t at, uint32_t of)
{
    struct member_view view = cores_view(rig, at, of);
    return view.record != NULL ? *view.record : (struct member_record){.status = MEMBER_LEFT + 1};
}

bool cores_is_whole(struct member_rig *rig)
{
    uint64_t hash = 0;
    for (uint32_t at = 0; at < rig->count; at++) {
        const struct member_core *core = rig->nodes[at].core;
        if (core == NULL)
            continue;
        if (member_core_self(core).state != MEMBER_MEMBER || (hash != 0 && member_core_hash(core) != hash))
            return false;
        hash = member_core_hash(core);
        for (uint32_t of = 0; of < rig->count; of++)
            if (rig->nodes[of].core != NULL && cores_record(rig, at, of).status != MEMBER_UP)
                return false;
    }
    return true;
}

unsigned cores_events(const struct member_rig *rig, uint32_t at, uint32_t of, enum member_event_kind kind)
{
    const struct member_core *core = rig->nodes[at].core;
    struct member_events range = member_core_events(core);
    unsigned count = 0;
    for (uint64_t n = range.first; n < range.next; n++) {
        const struct member_event *e = member_core_event(core, n);
        count += e->kind == kind && strcmp(e->id, rig->nodes[of].where.id) == 0;
    }
    return count;
}

enum sh_error cores_join(struct member_rig *rig, uint32_t at, uint32_t node, bool replace)
{
    const struct config_node *w = &rig->nodes[node].where;
    struct msg_node_join join = {.id = slice_str(w->id),
                                 .host = slice_str(w->host),
                                 .port = w->port,
                                 .group = slice_str(w->group),
                                 .replace = replace};
    char text[MEMBER_TEXT_MAX];
    uint64_t generation;
    enum sh_error e = member_core_join(rig->nodes[at].core, cores_time(rig, at), &join, &generation, text);
    take(rig, at);
    return e;
}

enum sh_error cores_leave(struct member_rig *rig, uint32_t at, uint32_t node)
{
    struct msg_node_leave_reply reply;
    char text[MEMBER_TEXT_MAX];
    enum sh_error e =
        member_core_leave(rig->nodes[at].core, cores_time(rig, at), rig->nodes[node].where.id, &reply, text);
    take(rig, at);
    return e;
}

bool cores_has_notice(struct member_rig *rig, const char *text)
{
    return strstr(buf_cstr(&rig->notices), text) != NULL;
}
