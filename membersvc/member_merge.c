/* Records that come in: whichever holds is kept, and told on. What others say of this node itself it refutes,
 * unless it has left or another identity has its id. */
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "member_parts.h"

bool merge_is_leap(const struct member *known, const struct member_record *r)
{
    return (r->generation > known->generation && r->generation - known->generation > LEAP_MAX) ||
           (r->incarnation > known->incarnation && r->incarnation - known->incarnation > LEAP_MAX);
}

uint64_t merge_raised(uint64_t incarnation)
{
    return incarnation < INT64_MAX ? incarnation + 1 : incarnation; /* the limit of the field */
}

static bool is_known_id(struct member_core *core, const struct member_record *r)
{
    if (r->generation <= 1 && id16_is_zero(r->log)) {
        core->counters.unknown_member++;
        out_notice(core, LOG_WARN, "unknown_member", slice_str(r->id),
                   "a topology file names a node that was never joined to this cluster", "at %s:%u", r->host,
                   (unsigned)r->port);
        return false;
    }
    if (core->count < MEMBER_RECORDS_MAX)
        return true;
    out_notice(core, LOG_ERROR, "too_many", slice_str(""), "too many members: a new one is ignored", "%s",
               r->id);
    return false;
}

bool merge_record(struct member_core *core, const struct member_record *r, const char *text)
{
    struct member *m = table_find(core, slice_str(r->id));
    struct member_record old;
    if (m == NULL && !is_known_id(core, r))
        return false;
    if (m != NULL) {
        table_unpack(m, &old);
        if (member_compare(r, &old) <= 0)
            return false;
        if (merge_is_leap(m, r)) {
            gate_malformed(core, slice_str(r->id));
            return false;
        }
    }
    if (strcmp(r->id, core->id) == 0) {
        merge_self(core, r);
        return true;
    }
    bool is_new = m == NULL;
    m = table_set(core, r);
    event_of_change(core, is_new ? NULL : &old, m, text);
    if (m->shown != 0 && !m->on_ring)
        m->shown = 0;
    gossip_news(core, m);
    return true;
}

/* ------------------------------------------------------------ this node */

void merge_own(struct member_core *core)
{
    core->own_bytes.len = 0;
    member_encode(&core->own, &core->own_bytes);
    struct member *m = table_set(core, &core->own);
    gossip_news(core, m);
    core->heartbeat_due_ns = core->now.mono_ns;
}

static void come_up(struct member_core *core, const struct member_record *r)
{
    core->own.generation = r->generation;
    if (core->own.incarnation < r->incarnation)
        core->own.incarnation = r->incarnation;
    core->own.incarnation = merge_raised(core->own.incarnation);
    core->own.status = MEMBER_UP;
    core->own.since_ms = wire_wall_ms(core);
    if (id16_equal(r->log, core->own.log) && r->born_ms > 0)
        core->own.born_ms = r->born_ms;
    core->own.not_log = id16_equal(r->not_log, core->own.log) ? (struct id16){{0}} : r->not_log;
}

/* A node that left speaks of itself as such: whoever hasn't heard of it learns it so. */
void merge_out(struct member_core *core, const struct member_record *r)
{
    core->has_left = r->status == MEMBER_LEFT;
    core->replaced = !core->has_left;
    if (core->has_left) {
        core->own.status = MEMBER_LEFT;
        core->own.generation = r->generation;
        core->own.since_ms = r->since_ms;
        if (core->own.incarnation < r->incarnation)
            core->own.incarnation = r->incarnation;
    }
    core->own_bytes.len = 0;
    member_encode(&core->own, &core->own_bytes);
    core_set_text(core,
                  core->has_left
                      ? "this node has left the cluster and takes no writes; `node join` on a member lets it "
                        "in again"
                      : "another identity has the id of this node, which takes no writes; `node join "
                        "--replace` on a member lets this one in again");
}

/* It belongs to the cluster no more. */
static void step_out(struct member_core *core, const struct member_record *r)
{
    struct member *m = table_set(core, r);
    merge_out(core, r);
    event_add(core, core->has_left ? MEMBER_EVENT_LEFT : MEMBER_EVENT_REPLACED, m, "this node itself");
    gossip_news(core, m);
    core->ring_changed = true;
}

static void step_in(struct member_core *core, const struct member_record *r)
{
    bool was_out = core->has_left || core->replaced;
    core->has_left = core->replaced = core->refused = false;
    core->opened_ns = core->awake_ns;
    core_set_text(core, "");
    come_up(core, r);
    merge_own(core);
    if (was_out)
        event_add(core, MEMBER_EVENT_UP, core->self, "this node itself");
    core->ring_changed = true;
}

void merge_self(struct member_core *core, const struct member_record *r)
{
    bool is_other = !id16_is_zero(r->log) && !id16_equal(r->log, core->own.log);
    bool is_out = core->has_left || core->replaced;
    if (found_has_forgotten(core, r)) {
        core->forgot = true; /* the gate knows who says so */
        return;
    }
    if (r->status == MEMBER_LEFT || is_other || id16_equal(r->not_log, core->own.log)) {
        if (!is_out || core->has_left != (r->status == MEMBER_LEFT))
            step_out(core, r);
        else
            table_set(core, r);
        return;
    }
    if (is_out || r->generation > core->own.generation) {
        step_in(core, r);
        return;
    }
    core->counters.refutations++;
    out_notice(core, LOG_WARN, "refutation", slice_str(core->id), "others took this node for what it isn't",
               "%s in incarnation %llu", member_status_name(r->status), (unsigned long long)r->incarnation);
    come_up(core, r);
    merge_own(core);
}
