/* The janitor's work in a test's hands. */
#include "upkeep_rig.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void on_damage(void *arg, const struct wal_scrub_damage *damage)
{
    struct upkeep_rig *u = arg;
    u->damages++;
    u->damage = *damage;
}

static void on_index_lost(void *arg)
{
    struct upkeep_rig *u = arg;
    u->indexes_lost++;
}

static void on_trimmed(void *arg, uint64_t first_lsn, uint64_t position)
{
    struct upkeep_rig *u = arg;
    (void)position;
    u->trims++;
    u->trimmed_lsn = first_lsn;
}

static void on_fatal(void *arg, const char *what, int result)
{
    struct upkeep_rig *u = arg;
    (void)what, (void)result;
    u->fatal++;
}

enum service_exit upkeep_rig_open(struct upkeep_rig *u, struct wal_rig *rig)
{
    struct wal_upkeep_options options = {
        .fs = rig->fs,
        .dir = rig->log.dir,
        .log = rig->dir.identity.log,
        .settings = u->settings,
        .stop = &u->stop,
        .damage = rig->dir.damage,
        .on_damage = on_damage,
        .on_index_lost = on_index_lost,
        .on_trimmed = on_trimmed,
        .on_fatal = on_fatal,
        .arg = u,
    };
    u->rig = rig;
    u->fatal = u->damages = u->trims = u->indexes_lost = 0;
    return wal_upkeep_open(&u->upkeep, &options, u->now);
}

void upkeep_rig_close(struct upkeep_rig *u)
{
    wal_upkeep_close(&u->upkeep);
    buf_free(&u->body);
}

enum sh_error upkeep_rig_ask(struct upkeep_rig *u, uint32_t type, const void *message)
{
    struct buf request = {0};
    struct msg_error error;
    uint32_t answer;
    msg_encode(type, message, &request);
    u->body.len = 0;
    u->code = SH_OK;
    wal_upkeep_answer(&u->upkeep, type, buf_slice(&request), u->now, &answer, &u->body);
    buf_free(&request);
    void *out = answer == MSG_error            ? (void *)&error
                : answer == MSG_log_trim_reply ? (void *)&u->trim
                : answer == MSG_hold_reply     ? (void *)&u->hold
                                               : (void *)&u->info;
    enum sh_error decoded = msg_decode(answer, buf_slice(&u->body), out);
    assert(decoded == SH_OK);
    if (answer != MSG_error)
        return SH_OK;
    u->expected = error.expected;
    return u->code = (enum sh_error)error.code;
}

enum sh_error upkeep_rig_trim(struct upkeep_rig *u, uint64_t before, bool dry_run, const char *release)
{
    struct msg_log_trim m = {.before = before, .dry_run = dry_run};
    if (release != NULL)
        m.release = slice_str(release);
    return upkeep_rig_ask(u, MSG_log_trim, &m);
}

enum sh_error upkeep_rig_hold(struct upkeep_rig *u, enum wal_hold_kind kind, const char *name, uint64_t lsn,
                              uint64_t ttl_ms)
{
    struct msg_hold m = {.kind = kind, .name = slice_str(name), .lsn = lsn, .ttl_ms = ttl_ms};
    return upkeep_rig_ask(u, MSG_hold, &m);
}

enum sh_error upkeep_rig_drop(struct upkeep_rig *u, enum wal_hold_kind kind, const char *name)
{
    struct msg_hold m = {.kind = kind, .name = slice_str(name), .remove = true};
    return upkeep_rig_ask(u, MSG_hold, &m);
}

enum sh_error upkeep_rig_info(struct upkeep_rig *u, uint64_t from)
{
    struct msg_wal_info m = {.from = from};
    return upkeep_rig_ask(u, MSG_wal_info, &m);
}

size_t upkeep_rig_ranges(const struct upkeep_rig *u)
{
    size_t count;
    free(wal_damage_list(u->rig->dir.damage, &count));
    return count;
}

bool upkeep_rig_held_by(const struct upkeep_rig *u, const char *name)
{
    struct mp m = mp_of(u->trim.held_by);
    struct slice text;
    uint32_t count;
    bool found = false;
    if (!mp_array(&m, &count))
        return false;
    for (uint32_t i = 0; i < count && mp_str(&m, &text); i++)
        found = found || (name != NULL && slice_is(text, name));
    return name != NULL ? found : count == 0;
}
