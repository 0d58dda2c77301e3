/* Events: each change that this node sees, numbered, the last 1,024 kept. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "member_parts.h"

/* Kept as small as it is; id and text follow, each with a NUL. */
struct kept_event {
    uint64_t number, wall_ms, generation, incarnation;
    uint32_t kind, id_bytes;
    char id[];
};

struct kind_text {
    int level;
    const char *text;
};

static struct kind_text text_of(enum member_event_kind kind)
{
    static const struct kind_text texts[] = {
        [MEMBER_EVENT_JOINING] = {LOG_INFO, "member joins"},
        [MEMBER_EVENT_UP] = {LOG_INFO, "member is up"},
        [MEMBER_EVENT_SUSPECT] = {LOG_WARN, "member is suspect"},
        [MEMBER_EVENT_DOWN] = {LOG_WARN, "member is down"},
        [MEMBER_EVENT_MUST_REJOIN] = {LOG_WARN, "member must rejoin"},
        [MEMBER_EVENT_LEFT] = {LOG_WARN, "member has left"},
        [MEMBER_EVENT_RESTARTED] = {LOG_INFO, "member has restarted"},
        [MEMBER_EVENT_MOVED] = {LOG_INFO, "member has another address"},
        [MEMBER_EVENT_REPLACED] = {LOG_WARN, "member is to be replaced"},
        [MEMBER_EVENT_UNREACHABLE] = {LOG_WARN, "member is unreachable from here, while others reach it"},
        [MEMBER_EVENT_REACHABLE] = {LOG_INFO, "member is reachable again"},
        [MEMBER_EVENT_CLOCK_DRIFT] = {LOG_WARN, "clock of a member is too far from ours"},
        [MEMBER_EVENT_CLOCK_GOOD] = {LOG_INFO, "clock of a member is near ours again"},
        [MEMBER_EVENT_FOUNDED] = {LOG_INFO, "this node belongs to its cluster now"},
        [MEMBER_EVENT_REFUSED] = {LOG_ERROR, "this node is refused by its cluster"},
        [MEMBER_EVENT_ALARM] = {LOG_ERROR, "alarm"},
    };
    return texts[kind];
}

static void keep(struct member_core *core, const struct member_event *e)
{
    if (core->events == NULL)
        core->events = xcalloc(MEMBER_EVENTS_MAX, sizeof *core->events);
    size_t id_bytes = strlen(e->id), text_bytes = strlen(e->text);
    struct kept_event **place = &core->events[e->number % MEMBER_EVENTS_MAX];
    free(*place);
    struct kept_event *k = *place = xmalloc(sizeof *k + id_bytes + text_bytes + 2);
    *k = (struct kept_event){.number = e->number,
                             .wall_ms = e->wall_ms,
                             .generation = e->generation,
                             .incarnation = e->incarnation,
                             .kind = (uint32_t)e->kind,
                             .id_bytes = (uint32_t)id_bytes};
    memcpy(k->id, e->id, id_bytes + 1);
    memcpy(k->id + id_bytes + 1, e->text, text_bytes + 1);
    struct member_events *range = &core->event_range;
    range->next = e->number + 1;
    if (range->next - range->first > MEMBER_EVENTS_MAX)
        range->first = range->next - MEMBER_EVENTS_MAX;
}

void event_restore(struct member_core *core, const struct member_event *e)
{
    keep(core, e);
}

void event_add(struct member_core *core, enum member_event_kind kind, const struct member *m,
               const char *text)
{
    struct member_event e = {
        .number = core->event_range.next,
        .kind = kind,
        .wall_ms = core->now.wall_ms > 0 ? (uint64_t)core->now.wall_ms : 0,
        .generation = m != NULL ? m->generation : 0,
        .incarnation = m != NULL ? m->incarnation : 0,
    };
    snprintf(e.id, sizeof e.id, "%s", m != NULL ? m->id : core->id);
    snprintf(e.text, sizeof e.text, "%.255s", text);
    keep(core, &e);
    core->version++;
    struct kind_text t = text_of(kind);
    out_notice(core, t.level, "", slice_str(e.id), t.text, "%s", text);
}

static enum member_event_kind kind_of(enum member_status status)
{
    static const enum member_event_kind kinds[] = {
        [MEMBER_JOINING] = MEMBER_EVENT_JOINING, [MEMBER_UP] = MEMBER_EVENT_UP,
        [MEMBER_SUSPECT] = MEMBER_EVENT_SUSPECT, [MEMBER_DOWN] = MEMBER_EVENT_DOWN,
        [MEMBER_LEFT] = MEMBER_EVENT_LEFT,       [MEMBER_MUST_REJOIN] = MEMBER_EVENT_MUST_REJOIN,
    };
    return kinds[status];
}

/* A node that hears nobody has shown it as suspect or down already. What is shown as down stays so when
 * others only suspect it. */
static bool is_shown(struct member *m)
{
    uint8_t shown = m->shown;
    if (shown == MEMBER_DOWN && m->status == MEMBER_SUSPECT)
        return true;
    m->shown = 0;
    return shown != 0 && shown == m->status;
}

static void of_attributes(struct member_core *core, const struct member_record *old,
                          const struct member_record *r, const struct member *m)
{
    if (r->generation > old->generation && !id16_is_zero(r->not_log))
        event_add(core, MEMBER_EVENT_REPLACED, m, "another identity with this id may come");
    bool is_same = r->generation == old->generation && !id16_is_zero(old->log);
    if (is_same && id16_equal(r->log, old->log) && !id16_equal(r->boot, old->boot))
        event_add(core, MEMBER_EVENT_RESTARTED, m, "");
    if (strcmp(r->host, old->host) != 0 || r->port != old->port) {
        char text[MEMBER_HOST_MAX + 16];
        snprintf(text, sizeof text, "%s:%u", r->host, (unsigned)r->port);
        event_add(core, MEMBER_EVENT_MOVED, m, text);
    }
}

void event_of_change(struct member_core *core, const struct member_record *old, struct member *m,
                     const char *text)
{
    struct member_record r;
    table_unpack(m, &r);
    if (old != NULL)
        of_attributes(core, old, &r, m);
    bool is_same = old != NULL && old->status == r.status && old->generation == r.generation;
    if (!is_same && !is_shown(m))
        event_add(core, kind_of(r.status), m, text);
}

/* ------------------------------------------------------------ questions */

struct member_events member_core_events(const struct member_core *core)
{
    return core->event_range;
}

const struct member_event *member_core_event(const struct member_core *core, uint64_t number)
{
    if (number < core->event_range.first || number >= core->event_range.next)
        return NULL;
    const struct kept_event *k = core->events[number % MEMBER_EVENTS_MAX];
    struct member_event *e = core->event_out;
    *e = (struct member_event){.number = k->number,
                               .kind = (enum member_event_kind)k->kind,
                               .wall_ms = k->wall_ms,
                               .generation = k->generation,
                               .incarnation = k->incarnation};
    snprintf(e->id, sizeof e->id, "%s", k->id);
    snprintf(e->text, sizeof e->text, "%s", k->id + k->id_bytes + 1);
    return e;
}

/* ------------------------------------------------------------ bytes */

void event_encode(const struct member_core *core, uint64_t number, struct buf *out)
{
    const struct member_event *e = member_core_event(core, number);
    struct msg_event m = {.number = e->number,
                          .kind = (uint64_t)e->kind,
                          .wall_ms = e->wall_ms,
                          .id = slice_str(e->id),
                          .generation = e->generation,
                          .incarnation = e->incarnation,
                          .text = slice_str(e->text)};
    msg_encode(MSG_event, &m, out);
}

enum sh_error event_decode(struct slice bytes, struct member_event *out)
{
    struct msg_event m;
    enum sh_error e = msg_decode(MSG_event, bytes, &m);
    if (e != SH_OK)
        return e;
    *out = (struct member_event){.number = m.number,
                                 .kind = (enum member_event_kind)m.kind,
                                 .wall_ms = m.wall_ms,
                                 .generation = m.generation,
                                 .incarnation = m.incarnation};
    bool good =
        member_text(out->id, sizeof out->id, m.id) && member_text(out->text, sizeof out->text, m.text);
    return good && m.kind >= MEMBER_EVENT_JOINING && m.kind <= MEMBER_EVENT_ALARM ? SH_OK : SH_BAD_REQUEST;
}

void event_free(struct member_core *core)
{
    for (unsigned i = 0; core->events != NULL && i < MEMBER_EVENTS_MAX; i++)
        free(core->events[i]);
    free(core->events);
}
