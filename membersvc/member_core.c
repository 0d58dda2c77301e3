/* The core as others see it: opening, time, and questions. What it does stands in the other files of this
 * folder, by idea (member_parts.h lists them). */
#include "member_core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digest.h"
#include "log.h"
#include "member_parts.h"
#include "telemetry.h"

enum {
    PROBES = 5,  /* in a heartbeat interval */
    LATE_MS = 50 /* what a busy machine may take, whatever the interval */
};

int64_t core_probe_ns(const struct member_core *core)
{
    return core->timing.heartbeat_ns / PROBES;
}

/* splitmix64 (Steele, Lea, Flood, 2014): any seed is a good one. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t core_random(struct member_core *core, uint64_t below)
{
    return below > 0 ? next_random(&core->random) % below : 0;
}

bool core_is_member(const struct member_core *core)
{
    return core->founded && !core->has_left && !core->replaced;
}

void core_set_text(struct member_core *core, const char *text)
{
    snprintf(core->text, sizeof core->text, "%s", text);
}

/* ------------------------------------------------------------ time */

/* When a call comes later than it was due, this process was stopped or starved, and can't have heard anything
 * meanwhile: that time counts for no silence. */
static void doubt(struct member_core *core, int64_t late_ns)
{
    core->lost_ns += late_ns;
    core->counters.doubts++;
    observe_forget_opinions(core);
    out_notice(core, LOG_WARN, "doubts", slice_str(core->id),
               "this process was stopped or starved: it trusts no silence of that time", "%lld ms late",
               (long long)(late_ns / NS_PER_MS));
}

void core_enter(struct member_core *core, struct member_time now)
{
    int64_t expected_ns = core->due_ns > core->last_call_ns ? core->due_ns : core->last_call_ns;
    if (now.mono_ns < core->now.mono_ns)
        now.mono_ns = core->now.mono_ns;
    int64_t probe_ns = core_probe_ns(core), late_ns = LATE_MS * (int64_t)NS_PER_MS;
    if (expected_ns != NO_TIME && now.mono_ns - expected_ns > (probe_ns > late_ns ? probe_ns : late_ns))
        doubt(core, now.mono_ns - expected_ns);
    core->now = now;
    core->last_call_ns = now.mono_ns;
    core->awake_ns = now.mono_ns - core->lost_ns;
}

static int64_t earliest(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void core_leave(struct member_core *core)
{
    if (core->ring_changed)
        observe_ring(core);
    int64_t due_ns = core->heartbeat_due_ns, observe_ns = observe_due(core);
    if (observe_ns != NO_TIME)
        due_ns = earliest(due_ns, observe_ns + core->lost_ns);
    bool has_news =
        core->news_first != NULL && core->ring_count > (core->self != NULL && core->self->on_ring);
    if (has_news || core->marks_moved)
        due_ns = earliest(due_ns, core->gossip_due_ns);
    if (core_is_member(core))
        due_ns = earliest(due_ns, core->sync_due_ns);
    due_ns = earliest(due_ns, found_due_ns(core));
    core->due_ns = due_ns > core->now.mono_ns ? due_ns : core->now.mono_ns;
}

int64_t member_core_due_ns(const struct member_core *core)
{
    return core->due_ns;
}

/* Up to a tenth earlier, by chance; never later: down_after is counted from the last heartbeat, so a crash is
 * not shown before down_after less an interval. Whoever is just about to find its cluster is quicker. */
static int64_t next_heartbeat_ns(struct member_core *core)
{
    int64_t interval_ns = found_is_hopeful(core) ? core_probe_ns(core) : core->timing.heartbeat_ns;
    return core->now.mono_ns + interval_ns - (int64_t)core_random(core, (uint64_t)interval_ns / 10);
}

void member_core_tick(struct member_core *core, struct member_time now)
{
    core_enter(core, now);
    if (core->ring_changed)
        observe_ring(core);
    observe_tick(core);
    if (core->now.mono_ns >= core->heartbeat_due_ns) {
        core->heartbeat_due_ns = next_heartbeat_ns(core);
        if (core_is_member(core))
            gossip_heartbeats(core);
        found_tick(core);
    }
    found_adopt_tick(core);
    gossip_tick(core);
    sync_tick(core);
    core_leave(core);
}

void member_core_receive(struct member_core *core, struct member_time now, struct slice message)
{
    core_enter(core, now);
    core->counters.received++;
    telemetry_add(TELEMETRY_member_received, 0, 1);
    core->counters.received_bytes += message.len;
    gate_receive(core, message);
    core_leave(core);
}

void member_core_set_timing(struct member_core *core, struct member_time now,
                            const struct member_timing *timing)
{
    core_enter(core, now);
    core->timing = *timing;
    core->heartbeat_due_ns = earliest(core->heartbeat_due_ns, next_heartbeat_ns(core));
    core->sync_due_ns = earliest(core->sync_due_ns, core->now.mono_ns + 2 * timing->heartbeat_ns);
    core_leave(core);
}

void member_core_watermark(struct member_core *core, struct member_time now,
                           const struct member_watermark *mark)
{
    core_enter(core, now);
    size_t i = 0;
    while (i < core->mark_count && !id16_equal(core->marks[i].log, mark->log))
        i++;
    if (i < MEMBER_WATERMARKS_MAX) {
        core->mark_count += i == core->mark_count;
        core->marks[i] = *mark;
        core->marks_moved = core_is_member(core);
    }
    core_leave(core);
}

static bool is_among(struct id16 log, const struct id16 *logs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (id16_equal(logs[i], log))
            return true;
    return false;
}

void member_core_holdings(struct member_core *core, struct member_time now, const struct id16 *logs,
                          size_t count)
{
    core_enter(core, now);
    size_t kept = 0;
    for (size_t i = 0; i < core->mark_count; i++)
        if (is_among(core->marks[i].log, logs, count))
            core->marks[kept++] = core->marks[i];
    if (kept < core->mark_count || core->holdings == 0) {
        core->holdings++;
        core->marks_moved = core_is_member(core);
    }
    core->mark_count = kept;
    core_leave(core);
}

/* ------------------------------------------------------------ open and close */

static void take_options(struct member_core *core, const struct member_options *o, struct member_time now)
{
    snprintf(core->cluster_name, sizeof core->cluster_name, "%s", o->cluster_name);
    memcpy(core->id, o->self->id, sizeof core->id);
    memcpy(core->cluster, o->cluster, sizeof core->cluster);
    core->boot = o->boot;
    core->timing = o->timing;
    core->random = o->seed;
    seeds_copy(core, o->nodes, o->node_count);
    core->now = now;
    core->last_call_ns = core->awake_ns = core->opened_ns = now.mono_ns;
    core->due_ns = NO_TIME;
    core->any_ns = core->asked_ns = NEVER;
    core->asks_next = true;
}

static void set_own(struct member_core *core, const struct member_options *o)
{
    struct member_record *r = &core->own;
    memcpy(r->id, o->self->id, sizeof r->id);
    memcpy(r->host, o->self->host, sizeof r->host);
    memcpy(r->group, o->self->group, sizeof r->group);
    r->port = o->self->port;
    r->admin_port = o->self->admin_port;
    r->log = o->log;
    r->boot = o->boot;
    r->status = MEMBER_UP;
    r->incarnation = 1;
    r->born_ms = r->since_ms = wire_wall_ms(core);
}

static void begin_series(struct member_core *core)
{
    for (unsigned i = 0; i < sizeof core->event_range.series.bytes; i++)
        core->event_range.series.bytes[i] = (uint8_t)(next_random(&core->random) >> 32);
    core->event_range.first = core->event_range.next = 1;
}

/* Goes on with what was loaded. */
static void resume(struct member_core *core)
{
    if (!core->founded) {
        found_start(core);
    } else if (core_is_member(core)) {
        merge_own(core);
    } else {
        struct member_record r;
        table_unpack(core->self, &r);
        merge_out(core, &r);
    }
}

enum sh_error member_core_open(const struct member_options *options, struct member_time now,
                               struct slice saved, char text[MEMBER_TEXT_MAX], struct member_core **out)
{
    struct member_core *core = xcalloc(1, sizeof *core);
    text[0] = 0;
    take_options(core, options, now);
    core->event_out = xcalloc(1, sizeof *core->event_out);
    core->record_out = xcalloc(1, sizeof *core->record_out);
    for (unsigned i = 0; i < COMPLAINTS_MAX; i++)
        core->complaints[i].at_ns = NEVER;
    set_own(core, options);
    begin_series(core);
    enum sh_error e = saved.len > 0 ? state_load(core, options->log, saved, text) : SH_OK;
    if (e != SH_OK) {
        member_core_close(core);
        return e;
    }
    resume(core);
    core->heartbeat_due_ns = now.mono_ns + (int64_t)core_random(core, (uint64_t)core_probe_ns(core) / 4);
    core->gossip_due_ns = now.mono_ns;
    core->sync_due_ns = now.mono_ns + (int64_t)core_random(core, (uint64_t)options->timing.heartbeat_ns);
    core->version++;
    core_leave(core);
    *out = core;
    return SH_OK;
}

void member_core_close(struct member_core *core)
{
    found_free(core);
    table_clear(core);
    for (unsigned i = 0; i < SETS; i++)
        free(core->sets[i].at);
    event_free(core);
    free(core->by_id);
    free(core->ring);
    free(core->table);
    seeds_free(core);
    free(core->notices);
    free(core->event_out);
    free(core->record_out);
    buf_free(&core->own_bytes);
    buf_free(&core->kept);
    buf_free(&core->sends);
    buf_free(&core->message);
    buf_free(&core->array);
    buf_free(&core->record);
    free(core);
}

/* ------------------------------------------------------------ questions */

uint64_t member_core_version(const struct member_core *core)
{
    return core->version;
}

uint64_t member_core_hash(const struct member_core *core)
{
    return core->view_hash;
}

const struct member_counters *member_core_counters(const struct member_core *core)
{
    return &core->counters;
}

struct member_self member_core_self(const struct member_core *core)
{
    struct member_self self = {.state = MEMBER_MEMBER, .text = core->text};
    if (core->has_left || core->replaced) {
        self.state = core->has_left ? MEMBER_HAS_LEFT : MEMBER_REPLACED;
        change_only_own(core, core->self, core->own.log, &self.only_first, &self.only_last);
    } else if (core->refused) {
        self.state = MEMBER_REFUSED;
    } else if (!core->founded) {
        self.state = MEMBER_FOUNDING;
    }
    return self;
}

size_t member_core_count(const struct member_core *core)
{
    return core->count;
}

void member_core_view(const struct member_core *core, struct member_time now, size_t index,
                      struct member_view *out)
{
    struct member *m = core->by_id[index];
    bool is_self = m == core->self;
    table_unpack(m, core->record_out);
    if (m->shown != 0)
        core->record_out->status = (enum member_status)m->shown;
    *out = (struct member_view){
        .record = core->record_out,
        .self = is_self,
        .observed = observe_watch((struct member_core *)core, m) != NULL,
        .unreachable = m->unreachable,
        .drifting = m->drifting,
        .heard_ns = m->heard_ns == NEVER ? -1 : now.mono_ns - m->heard_ns,
        .ahead_ms = m->ahead_ms,
        .watermarks = is_self ? core->marks : m->marks,
        .watermark_count = is_self ? core->mark_count : m->mark_count,
    };
}
