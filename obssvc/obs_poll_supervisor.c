/* The supervisor's tree and obituaries. */
#include "obs_poll_parts.h"

#include <stdio.h>

#include "clock.h"
#include "control.h"
#include "json_writer.h"

enum { CALL_MS = 2000, OBITUARIES = 20, PATH_MORE = 32 };

static bool call(struct obs_poll *p, const char *command, struct buf *storage, struct msg_svc_reply *reply)
{
    char path[CONFIG_PATH_MAX + PATH_MORE];
    const struct msg_svc_command message = {.command = slice_str(command), .limit = OBITUARIES};
    snprintf(path, sizeof path, "%s/supervisor.sock", p->obs->service->config->run_dir);
    return control_call(path, &message, CALL_MS, storage, reply) == SH_OK && reply->code == SH_OK;
}

/* An array, as JSON; false: it is none. */
static bool convert(struct slice rows, struct buf *out)
{
    struct json_writer j = {0};
    struct mp m = mp_of(rows);
    bool good = mp_peek(&m) == MP_ARRAY && json_msgpack(&j, NULL, &m);
    if (good)
        buf_append(out, j.out.data, j.out.len);
    buf_free(&j.out);
    return good;
}

/* False: they were not told. */
static bool ask_obituaries(struct obs_poll *p)
{
    struct buf storage = {0}, text = {0};
    struct msg_svc_reply reply;
    bool good = call(p, "obituary", &storage, &reply) && convert(reply.obituaries, &text);
    if (good) {
        pthread_mutex_lock(&p->lock);
        good = obs_tree_take_obituaries(p->tree, reply.obituaries, p->obs->since_ms - OBS_BEFORE_MS);
        obs_poll_keep(p, OBS_OBITUARIES, &text);
        pthread_mutex_unlock(&p->lock);
    }
    buf_free(&storage);
    buf_free(&text);
    return good;
}

static bool differs(struct obs_poll *p, struct slice rows)
{
    pthread_mutex_lock(&p->lock);
    bool result = obs_tree_differs(p->tree, rows);
    pthread_mutex_unlock(&p->lock);
    return result;
}

static void ask(struct obs_poll *p)
{
    struct buf storage = {0}, text = {0};
    struct msg_svc_reply reply;
    if (call(p, "tree", &storage, &reply) && convert(reply.tree, &text) &&
        (!differs(p, reply.tree) || ask_obituaries(p))) {
        pthread_mutex_lock(&p->lock);
        if (obs_tree_take(p->tree, reply.tree, clock_real_ns() / NS_PER_MS))
            obs_poll_keep(p, OBS_TREE, &text);
        p->kept[OBS_OBITUARIES].at_ns = clock_mono_ns(); /* while nothing changes nobody has died */
        pthread_mutex_unlock(&p->lock);
    }
    buf_free(&storage);
    buf_free(&text);
}

void *obs_poll_supervisor(void *arg)
{
    struct obs_poll *p = arg;
    int64_t due_ns = clock_mono_ns();
    while (obs_poll_wait(p, due_ns)) {
        due_ns = clock_mono_ns() + OBS_TURN_MS * INT64_C(1000000);
        ask(p);
    }
    return NULL;
}
