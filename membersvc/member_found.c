/* The first members: a node that knows only its topology file founds the cluster with others that have the
 * same one, or adopts what a member of a founded cluster tells it.
 *
 *   A (not founded) ── heartbeat (answer) ──> B (founded)
 *   A <── heartbeat ── B       when B has A's id
 *   A ── sync ──> B, A <── summary ── B: which records there are
 *   A ── gossip: want ──> B, A <── gossip ── B: until it has all of them
 *
 * Nodes that lost what they knew may have founded a cluster anew beside the one that they belong to. Whoever
 * of that one meets them shows it: then they forget theirs, and adopt. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digest.h"
#include "log.h"
#include "member_parts.h"

enum {
    ADOPT_ROUNDS = 10,  /* probe intervals that one member has for its answers */
    ASKED_INTERVALS = 3 /* heartbeat intervals: a refusal comes once in each */
};

/* A record that is still to come, or has. */
struct adopted {
    char id[CONFIG_ID_MAX + 1];
    struct member_record *record;
};

struct adoption {
    struct config_node source;
    struct adopted *list; /* ordered by id */
    size_t count, have;
    unsigned rounds;
    int64_t due_ns;
    bool has_summary;
};

void found_free(struct member_core *core)
{
    struct adoption *a = core->adoption;
    if (a == NULL)
        return;
    for (size_t i = 0; i < a->count; i++)
        free(a->list[i].record);
    free(a->list);
    free(a);
    core->adoption = NULL;
}

/* ------------------------------------------------------------ by the topology file */

static struct member_record record_of(const struct seed *node, uint64_t generation)
{
    struct member_record r = {.port = node->port,
                              .admin_port = node->admin_port,
                              .status = MEMBER_JOINING,
                              .generation = generation};
    snprintf(r.id, sizeof r.id, "%s", node->id);
    snprintf(r.host, sizeof r.host, "%s", node->host);
    snprintf(r.group, sizeof r.group, "%s", node->group);
    return r;
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static uint64_t hash_of_list(const struct member_core *core)
{
    const char **ids = xcalloc(core->seed_count, sizeof *ids);
    struct buf text = {0};
    for (size_t i = 0; i < core->seed_count; i++)
        ids[i] = core->seeds[i].id;
    qsort(ids, core->seed_count, sizeof *ids, compare_ids);
    for (size_t i = 0; i < core->seed_count; i++)
        buf_append(&text, ids[i], strlen(ids[i]) + 1);
    uint64_t hash = digest64(buf_slice(&text));
    buf_free(&text);
    free(ids);
    return hash;
}

/* Of a cluster that was founded beside this one: ids that it doesn't have come from a topology file. */
static void merge_kept(struct member_core *core)
{
    struct buf kept = core->kept;
    struct mp m = mp_of(buf_slice(&kept));
    struct slice bytes;
    struct member_record r;
    core->kept = (struct buf){0};
    while (mp_raw(&m, &bytes) && member_decode(bytes, &r) == SH_OK)
        if (r.generation > 1 || table_find(core, slice_str(r.id)) != NULL)
            merge_record(core, &r, "");
    buf_free(&kept);
}

/* All of the list become members of the first generation; they bind themselves when they come. */
static void found(struct member_core *core)
{
    table_clear(core);
    found_free(core);
    core->founded = true;
    core->opened_ns = core->awake_ns;
    for (size_t i = 0; i < core->seed_count; i++) {
        struct member_record r = record_of(&core->seeds[i], 1);
        if (strcmp(r.id, core->id) != 0)
            event_of_change(core, NULL, table_set(core, &r), "");
    }
    core->own.generation = 1;
    core->own.since_ms = wire_wall_ms(core);
    merge_own(core);
    core->asks_next = true;
    core_set_text(core, "");
    event_add(core, MEMBER_EVENT_FOUNDED, core->self, "by its topology file");
    merge_kept(core);
}

/* Until others are heard. */
static void wait_for_others(struct member_core *core)
{
    core->list = hash_of_list(core);
    core->own_bytes.len = 0;
    member_encode(&core->own, &core->own_bytes);
    for (size_t i = 0; i < core->seed_count; i++) {
        struct member_record r = record_of(&core->seeds[i], 0);
        table_set(core, strcmp(r.id, core->id) == 0 ? &core->own : &r);
    }
    core_set_text(core, "this node has not found its cluster yet");
}

void found_start(struct member_core *core)
{
    if (core->seed_count == 1)
        found(core);
    else
        wait_for_others(core);
}

/* ------------------------------------------------------------ adopting */

static struct address source_of(const struct adoption *a)
{
    return (struct address){.id = slice_str(a->source.id),
                            .host = slice_str(a->source.host),
                            .port = a->source.port,
                            .fresh = true};
}

static void ask_summary(struct member_core *core)
{
    struct address to = source_of(core->adoption);
    struct msg_sync m = {.from = buf_slice(&core->own_bytes), .wall_ms = wire_wall_ms(core)};
    wire_begin(core, MSG_sync);
    msg_encode(MSG_sync, &m, &core->message);
    out_send(core, &to, buf_slice(&core->message));
}

static void ask_missing(struct member_core *core)
{
    struct adoption *a = core->adoption;
    struct chunks c = {.core = core, .to = source_of(a)};
    for (size_t i = 0; i < a->count; i++)
        if (a->list[i].record == NULL)
            chunks_add_want(&c, slice_str(a->list[i].id));
    chunks_end(&c);
}

static void begin(struct member_core *core, const struct member_record *from)
{
    struct adoption *a = core->adoption = xcalloc(1, sizeof *a);
    memcpy(a->source.id, from->id, sizeof a->source.id);
    memcpy(a->source.host, from->host, sizeof a->source.host);
    a->source.port = from->port;
    a->due_ns = core->now.mono_ns + core_probe_ns(core);
    ask_summary(core);
}

static struct adopted *find(const struct adoption *a, const char *id)
{
    return a->count == 0
               ? NULL
               : bsearch(id, a->list, a->count, sizeof *a->list, (int (*)(const void *, const void *))strcmp);
}

static int compare_adopted(const void *a, const void *b)
{
    return strcmp(((const struct adopted *)a)->id, ((const struct adopted *)b)->id);
}

static bool take_ids(struct adoption *a, struct slice entries)
{
    struct mp m = mp_of(entries);
    uint32_t count;
    struct slice id;
    uint64_t hash;
    bool bad = false;
    if (!mp_array(&m, &count) || count == 0 || count > MEMBER_RECORDS_MAX)
        return false;
    a->list = xcalloc(count, sizeof *a->list);
    while (a->count < count && sync_entry(&m, &id, &hash, &bad))
        if (!member_text(a->list[a->count++].id, sizeof a->list->id, id))
            return false;
    qsort(a->list, a->count, sizeof *a->list, compare_adopted);
    for (size_t i = 1; i < a->count; i++)
        if (strcmp(a->list[i - 1].id, a->list[i].id) == 0)
            return false;
    return !bad && a->count == count && mp_at_end(&m);
}

static void on_summary(struct member_core *core, const struct member_record *from,
                       const struct msg_summary *summary)
{
    struct adoption *a = core->adoption;
    if (a == NULL || a->has_summary || strcmp(a->source.id, from->id) != 0)
        return;
    if (!take_ids(a, summary->entries) || find(a, core->id) == NULL) {
        gate_malformed(core, slice_str(from->id));
        found_free(core);
        return;
    }
    a->has_summary = true;
    ask_missing(core);
}

/* It has all records: the cluster's take the place of the file's. */
static void finish(struct member_core *core)
{
    struct adoption *a = core->adoption;
    struct member_record self = *find(a, core->id)->record;
    table_clear(core);
    core->adoption = NULL;
    core->founded = true;
    core->opened_ns = core->awake_ns; /* silence counts from here */
    core->refused = core->silent_seeds = false;
    core_set_text(core, "");
    for (size_t i = 0; i < a->count; i++) {
        const struct member_record *r = a->list[i].record;
        if (strcmp(r->id, core->id) == 0)
            table_set(core, r);
        else
            event_of_change(core, NULL, table_set(core, r), "");
    }
    core->adoption = a;
    found_free(core);
    core->asks_next = true;
    event_add(core, MEMBER_EVENT_FOUNDED, core->self, "it has learnt who the members are");
    merge_self(core, &self);
    merge_kept(core);
    core->sync_due_ns = core->now.mono_ns;
}

static void on_members(struct member_core *core, const struct member_record *from, struct slice members)
{
    struct adoption *a = core->adoption;
    struct mp m = mp_of(members);
    uint32_t count;
    struct slice bytes;
    struct member_record r;
    if (a == NULL || strcmp(a->source.id, from->id) != 0 || !mp_array(&m, &count))
        return;
    for (uint32_t i = 0; i < count && mp_raw(&m, &bytes); i++) {
        if (member_decode(bytes, &r) != SH_OK || r.generation == 0)
            continue;
        struct adopted *place = find(a, r.id);
        if (place == NULL || place->record != NULL)
            continue;
        place->record = xmalloc(sizeof r);
        *place->record = r;
        a->have++;
    }
    if (a->has_summary && a->have == a->count)
        finish(core);
}

/* ------------------------------------------------------------ what comes in, while it isn't founded */

static size_t count_heard(const struct member_core *core)
{
    size_t count = 0;
    for (uint32_t i = 0; i < core->count; i++)
        count += core->by_id[i]->heard_ns != NEVER;
    return count;
}

/* More than half of the list found: the others can't be members of a cluster that does not have this node. */
static void on_peer(struct member_core *core, const struct member_record *from, const struct msg_heartbeat *h)
{
    struct address to = {.id = slice_str(from->id), .host = slice_str(from->host), .port = from->port};
    if (strcmp(from->id, core->id) == 0)
        return;
    if (h->founded || core->refused || core->adoption != NULL) /* there is a cluster already */
        return;
    if (h->list != core->list) {
        out_notice(
            core, LOG_WARN, "other_list", slice_str(from->id),
            "the topology file of another node names other nodes: the cluster can't be founded with it",
            "at %s:%u", from->host, (unsigned)from->port);
        return;
    }
    struct member *m = table_find(core, slice_str(from->id));
    if (m == NULL) { /* it says that its list is ours, which doesn't name it */
        gate_malformed(core, slice_str(from->id));
        return;
    }
    m->heard_ns = core->now.mono_ns;
    if (count_heard(core) + 1 > core->seed_count / 2)
        found(core);
    if (core->founded || (h->answer && wire_may_answer(core, m, ANSWER_HEARTBEAT)))
        wire_send_heartbeat(core, &to, core->founded, false);
}

static bool is_near(struct member_core *core, const struct member_record *from, uint64_t wall_ms)
{
    uint64_t ours = wire_wall_ms(core), apart = wall_ms > ours ? wall_ms - ours : ours - wall_ms;
    if (apart <= core->timing.drift_ms)
        return true;
    core->counters.clock_drift++;
    out_notice(core, LOG_WARN, "clock_drift", slice_str(from->id),
               "the clock of a node is too far from ours: ignored", "%llu ms %s", (unsigned long long)apart,
               wall_ms > ours ? "ahead" : "behind");
    return false;
}

void found_on_message(struct member_core *core, uint32_t type, const struct member_record *from,
                      const void *message)
{
    const struct msg_heartbeat *h = message;
    if (!is_near(core, from, h->wall_ms)) /* it stands in the same place in all of them */
        return;
    if (from->status == MEMBER_LEFT) /* it can't tell who is there now */
        return;
    if (from->generation > 0)
        core->silent_seeds = false;
    if (type == MSG_heartbeat && from->generation == 0)
        on_peer(core, from, h);
    else if (type == MSG_heartbeat && h->founded && core->adoption == NULL)
        begin(core, from);
    else if (type == MSG_summary && from->generation > 0)
        on_summary(core, from, message);
    else if (type == MSG_gossip && from->generation > 0)
        on_members(core, from, ((const struct msg_gossip *)message)->members);
}

/* ------------------------------------------------------------ what comes in, when it has forgotten */

/* What was joined or left there was acknowledged: it is told to the cluster that is adopted. */
static void keep_records(struct member_core *core)
{
    for (uint32_t i = 0; i < core->count; i++)
        if (core->by_id[i] != core->self && core->by_id[i]->generation > 0)
            buf_append(&core->kept, core->by_id[i]->record, core->by_id[i]->record_bytes);
}

void found_again(struct member_core *core, const struct member_record *from)
{
    out_notice(core, LOG_WARN, "", slice_str(core->id),
               "this node had founded a cluster beside the one that knows it, and adopts that one", "%s",
               from != NULL ? from->id : "");
    keep_records(core);
    table_clear(core);
    found_free(core);
    core->founded = core->has_left = core->replaced = core->forgot = core->alone = core->silent_seeds = false;
    core->own.generation = 0;
    core->own.status = MEMBER_UP;
    core->own.not_log = (struct id16){{0}};
    core->opened_ns = core->awake_ns;
    core->sync_with[0] = core->asked[0] = 0;
    wait_for_others(core);
    if (from != NULL)
        begin(core, from);
}

bool found_has_forgotten(const struct member_core *core, const struct member_record *self)
{
    bool is_own = id16_equal(self->log, core->own.log), is_open = id16_is_zero(self->log);
    if (core->own.generation != 1)
        return false;
    return is_own ? self->born_ms < core->own.born_ms
                  : is_open && self->generation > 1 && self->status != MEMBER_LEFT &&
                        !id16_equal(self->not_log, core->own.log) && core_is_member(core);
}

/* What is known of this node there, asked for as by one that isn't founded: nothing of it is taken. */
static void ask_own(struct member_core *core, struct slice id, const struct address *to)
{
    struct member_record guest = core->own;
    struct buf bytes = {0}, want = {0};
    msgpack_packer pk;
    if (core->asked_ns != NEVER && core->now.mono_ns - core->asked_ns < core_probe_ns(core))
        return;
    core->asked_ns = core->now.mono_ns;
    member_text(core->asked, sizeof core->asked, id);
    guest.generation = 0;
    guest.status = MEMBER_UP;
    member_encode(&guest, &bytes);
    mp_packer(&pk, &want);
    msgpack_pack_array(&pk, 1);
    mp_pack_cstr(&pk, core->id);
    struct msg_gossip m = {
        .from = buf_slice(&bytes), .wall_ms = wire_wall_ms(core), .want = buf_slice(&want)};
    wire_begin(core, MSG_gossip);
    msg_encode(MSG_gossip, &m, &core->message);
    out_send(core, to, buf_slice(&core->message));
    buf_free(&bytes);
    buf_free(&want);
}

static bool find_own(const struct member_core *core, struct slice members, struct member_record *out)
{
    struct mp m = mp_of(members);
    uint32_t count;
    struct slice bytes;
    if (members.len == 0 || !mp_array(&m, &count))
        return false;
    for (uint32_t i = 0; i < count && mp_raw(&m, &bytes); i++)
        if (member_decode(bytes, out) == SH_OK && out->generation > 0 && strcmp(out->id, core->id) == 0)
            return true;
    return false;
}

/* It has met this node, with the identity that it has now: so it is of its cluster. */
static void meet(struct member_core *core, const struct member_record *from, const struct member_record *self)
{
    if (found_has_forgotten(core, self))
        found_again(core, from);
    else if (from->generation > 1) /* it was joined while this node was away */
        merge_record(core, from, "");
}

void found_on_stranger(struct member_core *core, uint32_t type, const struct member_record *from,
                       const void *message)
{
    struct member_record self;
    const struct msg_gossip *gossip = message;
    if (from->generation == 0 || from->status == MEMBER_LEFT || !is_near(core, from, gossip->wall_ms))
        return;
    struct address to = {.host = slice_str(from->host), .port = from->port, .fresh = true};
    if (type != MSG_gossip || !find_own(core, gossip->members, &self))
        ask_own(core, slice_str(from->id), &to);
    else if (id16_equal(self.log, core->own.log))
        meet(core, from, &self);
    else if (!core_is_member(core) && self.generation > core->own.generation && id16_is_zero(self.log))
        found_again(core, from); /* it is let in again, by those who came after it was out */
}

void found_on_members(struct member_core *core, const char *from, struct slice members)
{
    struct member_record self;
    if (core->asked[0] != 0 && strcmp(core->asked, from) == 0 && find_own(core, members, &self) &&
        id16_equal(self.log, core->own.log))
        core->asked[0] = 0;
}

/* Whether its cluster may be one that was founded beside the sender's: then the sender is asked, and when all
 * that comes back is another refusal, it is. Somebody else may have spoken with this node's id. */
static bool is_certain(struct member_core *core, struct slice sender)
{
    const struct member *m = table_find(core, sender);
    bool is_asking = core->asked[0] != 0 &&
                     core->now.mono_ns - core->asked_ns < ASKED_INTERVALS * core->timing.heartbeat_ns;
    if (is_asking && slice_is(sender, core->asked))
        return true;
    if (is_asking || m == NULL)
        return false;
    struct address to = address_of(core, m);
    ask_own(core, sender, &to);
    return false;
}

void found_on_refused(struct member_core *core, struct slice sender, const char *text)
{
    if (core->refused || (core->founded && core->own.generation > 1 && core->any_ns != NEVER))
        return;
    if (core->founded && core->own.generation == 1) {
        if (!is_certain(core, sender))
            return;
        found_again(core, NULL);
    }
    core->refused = true;
    core_set_text(core, text);
    event_add(core, MEMBER_EVENT_REFUSED, core->self, text);
}

/* ------------------------------------------------------------ time */

bool found_is_hopeful(const struct member_core *core)
{
    return !core->founded && !core->silent_seeds && !core->refused;
}

void found_tick(struct member_core *core)
{
    seeds_try(core);
    if (core->founded)
        return;
    if (core->awake_ns - core->opened_ns < core->timing.down_ns || core->refused || core->silent_seeds ||
        core->adoption != NULL)
        return;
    core->silent_seeds = true;
    core_set_text(core,
                  count_heard(core) > 0
                      ? "the cluster is founded when more than half of the nodes in the topology file "
                        "are there; or, if there is one, `node join` of this node on a member is missing"
                      : "no seed has answered yet: they can't be reached, or `node join` of this node "
                        "on a member is missing");
    out_notice(core, LOG_WARN, "silent_seeds", slice_str(core->id), "this node has not found its cluster",
               "%s", core->text);
}

int64_t found_due_ns(const struct member_core *core)
{
    return core->adoption != NULL ? core->adoption->due_ns : NO_TIME;
}

/* Asks again for what hasn't come, and in the end another member. */
void found_adopt_tick(struct member_core *core)
{
    struct adoption *a = core->adoption;
    if (a == NULL || core->now.mono_ns < a->due_ns)
        return;
    a->due_ns = core->now.mono_ns + core_probe_ns(core);
    if (++a->rounds > ADOPT_ROUNDS)
        found_free(core);
    else if (a->has_summary)
        ask_missing(core);
    else
        ask_summary(core);
}
