/* Whom to ask for a checkpoint, and what comes next. Nothing here is fatal. */
#include "view_fetch.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { PAUSE_FIRST_MS = 500, PAUSE_MOST_MS = 10000, STRANGE_ROUNDS = 3 };
#define SETTLE_NS (30 * NS_PER_S)
#define FETCH_NS  (6 * 3600 * NS_PER_S)

void view_fetch_init(struct view_fetch *f)
{
    *f = (struct view_fetch){.due_ns = INT64_MAX};
}

static void go(struct view_fetch *f, enum fetch_state state, enum fetch_action_kind action)
{
    f->state = state;
    f->action = action;
    f->due_ns = INT64_MAX;
}

struct fetch_action view_fetch_next(struct view_fetch *f)
{
    struct fetch_action action = {.kind = f->action, .node = f->members[f->at].id, .id = f->id};
    if (f->drop) {
        f->drop = false;
        action.kind = FETCH_DROP;
        return action;
    }
    f->action = FETCH_NOTHING;
    return action;
}

int64_t view_fetch_due_ns(const struct view_fetch *f)
{
    return f->due_ns;
}

static void pause_it(struct view_fetch *f, int64_t now_ns)
{
    int64_t ms = (int64_t)PAUSE_FIRST_MS << (f->pauses < 5 ? f->pauses : 5);
    f->pauses++;
    go(f, FETCH_PAUSING, FETCH_NOTHING);
    f->due_ns = now_ns + (ms < PAUSE_MOST_MS ? ms : PAUSE_MOST_MS) * NS_PER_MS;
}

/* ---------------------------------------------------------------- words */

static void add(char text[FETCH_TEXT_MAX], const char *more)
{
    size_t len = strlen(text);
    snprintf(text + len, FETCH_TEXT_MAX - len, "%s", more);
}

static void describe_need(struct view_fetch *f)
{
    char uuid[ID_TEXT];
    id16_format(f->first_need.log, uuid);
    snprintf(f->lacks, sizeof f->lacks, "log %s behind LSN %llu is trimmed before %llu", uuid,
             (unsigned long long)f->first_need.applied, (unsigned long long)f->first_need.first);
}

/* Why nobody helps, and what does. */
static void describe(struct view_fetch *f)
{
    char part[192];
    describe_need(f);
    add(f->lacks, f->member_count == 0 ? "; there is no other member of the group" : "");
    for (size_t i = 0; i < f->member_count; i++) {
        const struct fetch_member *m = &f->members[i];
        if (m->answered)
            snprintf(part, sizeof part, "; %.32s has it up to %llu", m->id, (unsigned long long)m->reaches);
        else
            snprintf(part, sizeof part, "; %.32s: %s", m->id, m->why);
        add(f->lacks, part);
    }
    add(f->lacks, "; start a member whose view has it");
}

/* ---------------------------------------------------------------- who helps */

static bool is_known(const struct fetch_own *own, struct id16 log)
{
    for (size_t i = 0; i < own->held_count; i++)
        if (id16_equal(own->held[i], log))
            return true;
    return false;
}

/* Logs that are not here, and that the member's view has more of. */
static unsigned strangers(const struct view_vector *theirs, const struct fetch_own *own)
{
    unsigned count = 0;
    for (size_t i = 0; i < theirs->count; i++) {
        const struct view_place *here = view_place_of(own->applied, theirs->all[i].log);
        count += !is_known(own, theirs->all[i].log) && theirs->all[i].lsn > (here != NULL ? here->lsn : 0);
    }
    return count;
}

static void note(struct view_fetch *f, const struct view_vector *theirs, const struct fetch_own *own)
{
    struct fetch_member *m = &f->members[f->at];
    const struct view_place *place = view_place_of(theirs, f->first_need.log);
    m->answered = true;
    m->reaches = place != NULL ? place->lsn : 0;
    m->helps = own->compares ? strangers(theirs, own) : 0;
    for (size_t i = 0; i < own->need_count; i++)
        m->helps += merge_in_helps(theirs, own->needs[i].log, own->needs[i].applied, own->needs[i].first);
}

/* -1: nobody. */
static int best(const struct view_fetch *f)
{
    int found = -1;
    for (size_t i = 0; i < f->member_count; i++) {
        const struct fetch_member *m = &f->members[i], *other = found >= 0 ? &f->members[found] : NULL;
        if (m->answered && m->helps > 0 &&
            (other == NULL || m->failures < other->failures ||
             (m->failures == other->failures && m->helps > other->helps)))
            found = (int)i;
    }
    return found;
}

static bool has_answered(const struct view_fetch *f)
{
    bool answered = false;
    for (size_t i = 0; i < f->member_count; i++)
        answered = answered || f->members[i].answered;
    return answered;
}

/* All were asked. A log that is unknown here may be about to come; what nobody has is waited for. */
static void choose(struct view_fetch *f, int64_t now_ns)
{
    int member = best(f);
    f->strange_rounds = member >= 0 && f->need_count == 0 ? f->strange_rounds + 1 : 0;
    if (f->need_count > 0 && member < 0)
        describe(f);
    if (member >= 0 && (f->need_count > 0 || f->strange_rounds >= STRANGE_ROUNDS)) {
        f->at = (size_t)member;
        go(f, FETCH_OPENING, FETCH_OPEN);
    } else if (f->need_count == 0 && member < 0 && has_answered(f)) {
        go(f, FETCH_COMPARED, FETCH_NOTE);
    } else {
        pause_it(f, now_ns);
    }
}

static void look_at_next(struct view_fetch *f, int64_t now_ns)
{
    f->at++;
    if (f->at < f->member_count) {
        go(f, FETCH_LOOKING, FETCH_LOOK);
        return;
    }
    f->at = 0;
    choose(f, now_ns);
}

/* ---------------------------------------------------------------- events */

static void begin(struct view_fetch *f, const struct fetch_own *own)
{
    f->need_count = own->need_count;
    f->first_need = own->need_count > 0 ? own->needs[0] : (struct fetch_need){0};
    f->rows = f->bytes = f->total = 0;
    if (f->need_count > 0 && f->lacks[0] == 0) {
        describe_need(f);
        add(f->lacks, "; the members are being asked");
    }
    go(f, FETCH_LISTING, FETCH_LIST);
}

static void end(struct view_fetch *f, bool pausing_next)
{
    f->pausing_next = pausing_next;
    go(f, FETCH_ENDING, FETCH_CLOSE);
}

static void be_idle(struct view_fetch *f)
{
    go(f, FETCH_IDLE, FETCH_NOTHING);
    f->pauses = 0;
    f->lacks[0] = 0;
}

void view_fetch_look(struct view_fetch *f, int64_t now_ns, const struct fetch_own *own, bool settled)
{
    bool lacks = own->need_count > 0 || own->compares;
    if (f->state == FETCH_IDLE && lacks)
        begin(f, own);
    else if (f->state == FETCH_PAUSING && !lacks)
        be_idle(f);
    else if (f->state == FETCH_PAUSING && now_ns >= f->due_ns)
        begin(f, own);
    else if (f->state == FETCH_SETTLING && (settled || now_ns >= f->due_ns))
        end(f, false);
}

static struct fetch_member known(const struct view_fetch *f, const char *id)
{
    struct fetch_member member = {.why = "not asked"};
    for (size_t i = 0; i < f->member_count; i++)
        if (strcmp(f->members[i].id, id) == 0)
            member.failures = f->members[i].failures;
    snprintf(member.id, sizeof member.id, "%s", id);
    return member;
}

void view_fetch_listed(struct view_fetch *f, int64_t now_ns, const char (*ids)[FETCH_NODE_MAX + 1],
                       size_t count, uint64_t id)
{
    struct fetch_member members[FETCH_MEMBERS_MAX];
    assert(f->state == FETCH_LISTING);
    count = count < FETCH_MEMBERS_MAX ? count : FETCH_MEMBERS_MAX;
    for (size_t i = 0; i < count; i++)
        members[i] = known(f, ids[i]);
    memcpy(f->members, members, count * sizeof *members);
    f->member_count = count;
    f->id = id;
    f->at = 0;
    if (count > 0)
        go(f, FETCH_LOOKING, FETCH_LOOK);
    else
        choose(f, now_ns);
}

void view_fetch_looked(struct view_fetch *f, int64_t now_ns, const struct view_vector *theirs,
                       const struct fetch_own *own)
{
    assert(f->state == FETCH_LOOKING);
    note(f, theirs, own);
    look_at_next(f, now_ns);
}

void view_fetch_done(struct view_fetch *f, int64_t now_ns, uint64_t total)
{
    switch (f->state) {
    case FETCH_OPENING:
        f->total = total;
        f->deadline_ns = now_ns + FETCH_NS;
        go(f, FETCH_BEGINNING, FETCH_BEGIN);
        break;
    case FETCH_BEGINNING:
        go(f, FETCH_ASKING, FETCH_ROWS);
        break;
    case FETCH_ASKING:
        go(f, FETCH_STORING, FETCH_STORE);
        break;
    case FETCH_INSTALLING:
        f->members[f->at].failures = 0;
        f->lacks[0] = 0;
        f->drop = true;
        go(f, FETCH_SETTLING, FETCH_NOTHING);
        f->due_ns = now_ns + SETTLE_NS;
        break;
    case FETCH_ENDING:
        if (f->pausing_next)
            pause_it(f, now_ns);
        else
            be_idle(f);
        break;
    case FETCH_COMPARED:
        be_idle(f);
        break;
    default:
        assert(false); /* nothing that could be done is under way */
    }
}

void view_fetch_stored(struct view_fetch *f, int64_t now_ns, uint64_t rows, uint64_t bytes, bool more)
{
    assert(f->state == FETCH_STORING);
    f->rows = rows;
    f->bytes = bytes;
    if (now_ns > f->deadline_ns)
        view_fetch_failed(f, now_ns, "it takes too long", false);
    else if (more)
        go(f, FETCH_ASKING, FETCH_ROWS);
    else
        go(f, FETCH_INSTALLING, FETCH_INSTALL);
}

/* Something of a checkpoint is at the member, or here. */
static bool is_fetching(const struct view_fetch *f)
{
    return f->state >= FETCH_OPENING && f->state <= FETCH_INSTALLING;
}

void view_fetch_failed(struct view_fetch *f, int64_t now_ns, const char *why, bool is_gone)
{
    struct fetch_member *m = &f->members[f->at];
    snprintf(m->why, sizeof m->why, "%s", why);
    if (f->state == FETCH_LOOKING) {
        m->answered = false;
        look_at_next(f, now_ns);
        return;
    }
    if (is_fetching(f)) {
        m->failures++;
        m->answered = false;
        f->drop = true;
        if (f->need_count > 0)
            describe(f);
    }
    if (is_fetching(f) && !is_gone)
        end(f, true);
    else if (f->state == FETCH_ENDING && !f->pausing_next)
        be_idle(f);
    else
        pause_it(f, now_ns);
}
