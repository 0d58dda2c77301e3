/* Rows as they were before are compared by the service's name. */
#include "obs_tree.h"

#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "config.h"
#include "log.h"

struct row {
    char name[CONFIG_ID_MAX + 1], state[16];
    int64_t pid, restarts;
};

struct death {
    char service[CONFIG_ID_MAX + 1], cause[64];
    int64_t count;
};

/* Which obituary was the newest. */
struct last_death {
    int64_t time_ms, pid;
};

struct obs_tree {
    obs_tree_fn *fn;
    void *arg;
    bool is_known, has_obituaries;
    struct row rows[CONFIG_TREE_MAX];
    size_t count;
    int64_t supervisor_ms; /* its age */
    struct death deaths[OBS_DEATHS];
    size_t death_count;
    struct last_death last;
};

struct obs_tree *obs_tree_open(obs_tree_fn *fn, void *arg)
{
    struct obs_tree *tree = xcalloc(1, sizeof *tree);
    tree->fn = fn;
    tree->arg = arg;
    return tree;
}

void obs_tree_close(struct obs_tree *tree)
{
    free(tree);
}

static void copy(char *out, size_t size, struct slice text)
{
    size_t len = text.len < size ? text.len : size - 1;
    if (len > 0)
        memcpy(out, text.data, len);
    out[len] = 0;
}

/* ---------------------------------------------------------------- what is told */

static void tell(struct obs_tree *tree, int64_t time_ms, enum log_level level, const char *kind,
                 const struct buf *text, const struct buf *fields)
{
    tree->fn(tree->arg, &(struct obs_event){.time_ms = time_ms,
                                            .level = level,
                                            .service = slice_str("shanghaid"),
                                            .kind = slice_str(kind),
                                            .text = buf_slice(text),
                                            .fields = buf_slice(fields)});
}

static void pack_number(msgpack_packer *pk, const char *name, int64_t number)
{
    mp_pack_cstr(pk, name);
    msgpack_pack_int64(pk, number);
}

static void pack_name(msgpack_packer *pk, const char *name)
{
    mp_pack_cstr(pk, "service");
    mp_pack_cstr(pk, name);
}

/* What is said of a state; those that are passed through are not told. */
static const struct state {
    const char *name, *kind, *text;
    enum log_level level;
} states[] = {
    {"running", "service_running", "runs", LOG_INFO},
    {"stopped", "service_stopped", "was stopped", LOG_INFO},
    {"backoff", "service_backoff", "waits to be started again", LOG_WARN},
    {"held", "service_held", "is held down until what it needs is there", LOG_WARN},
    {"failed", "service_failed", "has failed, and is not started again", LOG_ERROR},
};

static void tell_state(struct obs_tree *tree, const struct row *row, int64_t now_ms)
{
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        struct buf text = {0}, fields = {0};
        msgpack_packer pk;
        if (strcmp(states[i].name, row->state) != 0)
            continue;
        mp_packer(&pk, &fields);
        msgpack_pack_map(&pk, 3);
        pack_name(&pk, row->name);
        pack_number(&pk, "pid", row->pid);
        pack_number(&pk, "restarts", row->restarts);
        buf_printf(&text, "%s %s", row->name, states[i].text);
        tell(tree, now_ms, states[i].level, states[i].kind, &text, &fields);
        buf_free(&text);
        buf_free(&fields);
    }
}

static void tell_death(struct obs_tree *tree, struct slice map)
{
    struct buf text = {0}, fields = {0};
    struct slice service = mp_find_str(map, "service"), cause = mp_find_str(map, "cause");
    msgpack_packer pk;
    mp_packer(&pk, &fields);
    msgpack_pack_map(&pk, 5);
    mp_pack_cstr(&pk, "service");
    mp_pack_str(&pk, service);
    mp_pack_cstr(&pk, "cause");
    mp_pack_str(&pk, cause);
    pack_number(&pk, "pid", mp_find_int(map, "pid"));
    pack_number(&pk, "uptime_ms", mp_find_int(map, "uptime_ms"));
    pack_number(&pk, "restarts", mp_find_int(map, "restarts"));
    buf_append(&text, service.data, service.len);
    buf_append_str(&text, " died: ");
    buf_append(&text, cause.data, cause.len);
    tell(tree, mp_find_int(map, "time_ms"), LOG_WARN, "service_died", &text, &fields);
    buf_free(&text);
    buf_free(&fields);
}

/* ---------------------------------------------------------------- rows */

static const struct row *row_named(const struct obs_tree *tree, const char *name)
{
    for (size_t i = 0; i < tree->count; i++)
        if (strcmp(tree->rows[i].name, name) == 0)
            return &tree->rows[i];
    return NULL;
}

static void read_row(struct slice map, struct row *row)
{
    copy(row->name, sizeof row->name, mp_find_str(map, "name"));
    copy(row->state, sizeof row->state, mp_find_str(map, "state"));
    row->pid = mp_find_int(map, "pid");
    row->restarts = mp_find_int(map, "restarts");
}

/* The services. False: the rows make no sense. */
static bool read_rows(struct slice rows, struct row out[CONFIG_TREE_MAX], size_t *services,
                      int64_t *supervisor_ms)
{
    struct mp m = mp_of(rows);
    struct slice map;
    uint32_t count;
    *services = 0;
    if (!mp_array(&m, &count) || count > CONFIG_TREE_MAX)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (!mp_raw(&m, &map))
            return false;
        if (!slice_is(mp_find_str(map, "kind"), "supervisor"))
            read_row(map, &out[(*services)++]);
        else if (mp_find_int(map, "depth") == 0)
            *supervisor_ms = mp_find_int(map, "uptime_ms");
    }
    return true;
}

static bool is_same(const struct row *before, const struct row *row)
{
    return before != NULL && before->pid == row->pid && before->restarts == row->restarts &&
           strcmp(before->state, row->state) == 0;
}

bool obs_tree_differs(const struct obs_tree *tree, struct slice rows)
{
    struct row now[CONFIG_TREE_MAX] = {0};
    int64_t supervisor_ms;
    size_t count;
    if (!read_rows(rows, now, &count, &supervisor_ms))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!is_same(row_named(tree, now[i].name), &now[i]))
            return true;
    return false;
}

bool obs_tree_take(struct obs_tree *tree, struct slice rows, int64_t now_ms)
{
    struct row now[CONFIG_TREE_MAX] = {0};
    size_t count;
    if (!read_rows(rows, now, &count, &tree->supervisor_ms))
        return false;
    for (size_t i = 0; i < count && tree->is_known; i++)
        if (!is_same(row_named(tree, now[i].name), &now[i]))
            tell_state(tree, &now[i], now_ms);
    memcpy(tree->rows, now, sizeof now);
    tree->count = count;
    tree->is_known = true;
    return true;
}

/* ---------------------------------------------------------------- obituaries */

static void count_death(struct obs_tree *tree, struct slice map)
{
    struct death d = {0};
    copy(d.service, sizeof d.service, mp_find_str(map, "service"));
    copy(d.cause, sizeof d.cause, mp_find_str(map, "cause"));
    for (size_t i = 0; i < tree->death_count; i++)
        if (strcmp(tree->deaths[i].service, d.service) == 0 && strcmp(tree->deaths[i].cause, d.cause) == 0) {
            tree->deaths[i].count++;
            return;
        }
    if (tree->death_count == OBS_DEATHS)
        return;
    d.count = 1;
    tree->deaths[tree->death_count++] = d;
}

static struct last_death death_of(struct slice map)
{
    return (struct last_death){mp_find_int(map, "time_ms"), mp_find_int(map, "pid")};
}

static bool is_news(const struct obs_tree *tree, struct slice map, int64_t since_ms)
{
    struct last_death d = death_of(map);
    if (!tree->has_obituaries)
        return d.time_ms >= since_ms;
    return d.time_ms != tree->last.time_ms || d.pid != tree->last.pid;
}

bool obs_tree_take_obituaries(struct obs_tree *tree, struct slice rows, int64_t since_ms)
{
    struct mp m = mp_of(rows);
    struct slice maps[128] = {0};
    uint32_t count;
    size_t news = 0;
    if (!mp_array(&m, &count))
        return false;
    while (news < count && news < sizeof maps / sizeof *maps && mp_raw(&m, &maps[news]) &&
           is_news(tree, maps[news], since_ms))
        news++;
    for (size_t i = news; i-- > 0;) {
        count_death(tree, maps[i]);
        tell_death(tree, maps[i]);
    }
    if (count > 0)
        tree->last = death_of(maps[0]);
    tree->has_obituaries = true;
    return true;
}

/* ---------------------------------------------------------------- metrics */

uint32_t obs_tree_gather(const struct obs_tree *tree, msgpack_packer *pk)
{
    if (!tree->is_known)
        return 0;
    for (size_t i = 0; i < tree->count; i++) {
        const char *name = tree->rows[i].name;
        telemetry_gather(pk, TELEMETRY_service_up, &name, strcmp(tree->rows[i].state, "running") == 0);
        telemetry_gather(pk, TELEMETRY_restarts, &name, tree->rows[i].restarts);
    }
    for (size_t i = 0; i < tree->death_count; i++)
        telemetry_gather(pk, TELEMETRY_deaths,
                         (const char *const[]){tree->deaths[i].service, tree->deaths[i].cause},
                         tree->deaths[i].count);
    telemetry_gather(pk, TELEMETRY_supervisor_uptime, NULL, tree->supervisor_ms * NS_PER_MS);
    return (uint32_t)(2 * tree->count + tree->death_count) + 1;
}
