/* What is kept, and the life of the threads. */
#include "obs_poll_parts.h"

#include <stdlib.h>

#include "clock.h"

/* ---------------------------------------------------------------- turns */

bool obs_poll_wait(struct obs_poll *p, int64_t due_ns)
{
    const struct timespec due = {.tv_sec = due_ns / NS_PER_S, .tv_nsec = due_ns % NS_PER_S};
    pthread_mutex_lock(&p->lock);
    while (!p->stopping && clock_mono_ns() < due_ns)
        pthread_cond_timedwait(&p->wake, &p->lock, &due);
    bool goes_on = !p->stopping;
    pthread_mutex_unlock(&p->lock);
    return goes_on;
}

bool obs_poll_is_stopping(struct obs_poll *p)
{
    pthread_mutex_lock(&p->lock);
    bool stopping = p->stopping;
    pthread_mutex_unlock(&p->lock);
    return stopping;
}

/* ---------------------------------------------------------------- what is kept */

void obs_poll_keep(struct obs_poll *p, enum obs_kept kept, struct buf *text)
{
    struct buf old = p->kept[kept].text;
    p->kept[kept] = (struct obs_answer){*text, clock_mono_ns()};
    *text = old;
    text->len = 0;
}

static bool is_young(const struct obs_answer *answer, int64_t *age_ms)
{
    *age_ms = (clock_mono_ns() - answer->at_ns) / NS_PER_MS;
    return answer->at_ns > 0 && *age_ms < OBS_OLD_MS;
}

bool obs_poll_read(struct obs_poll *p, enum obs_kept kept, struct buf *out, int64_t *age_ms)
{
    pthread_mutex_lock(&p->lock);
    const struct obs_answer *answer = &p->kept[kept];
    bool good = is_young(answer, age_ms);
    if (good)
        buf_append(out, answer->text.data, answer->text.len);
    pthread_mutex_unlock(&p->lock);
    return good;
}

void obs_poll_condition(struct obs_poll *p, struct obs_condition *out)
{
    int64_t age_ms;
    pthread_mutex_lock(&p->lock);
    *out = (struct obs_condition){.has_status = is_young(&p->kept[OBS_STATUS], &age_ms),
                                  .has_nodes = is_young(&p->kept[OBS_NODES], &age_ms),
                                  .writes = p->writes,
                                  .state = p->state};
    pthread_mutex_unlock(&p->lock);
}

uint32_t obs_poll_gather(struct obs_poll *p, msgpack_packer *pk)
{
    int64_t age_ms;
    pthread_mutex_lock(&p->lock);
    uint32_t count = is_young(&p->kept[OBS_TREE], &age_ms) ? obs_tree_gather(p->tree, pk) : 0;
    pthread_mutex_unlock(&p->lock);
    return count;
}

/* ---------------------------------------------------------------- life */

static void on_tree_event(void *arg, const struct obs_event *event)
{
    struct obs_poll *p = arg;
    obs_tell(p->obs, event);
}

struct obs_poll *obs_poll_open(struct obs *obs)
{
    struct obs_poll *p = xcalloc(1, sizeof *p);
    pthread_condattr_t attributes;
    p->obs = obs;
    p->tree = obs_tree_open(on_tree_event, p);
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&p->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&p->node, NULL, obs_poll_node, p) != 0 ||
        pthread_create(&p->supervisor, NULL, obs_poll_supervisor, p) != 0)
        abort();
    return p;
}

void obs_poll_close(struct obs_poll *p)
{
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->node, NULL);
    pthread_join(p->supervisor, NULL);
    for (int i = 0; i < OBS_KEPT; i++)
        buf_free(&p->kept[i].text);
    obs_tree_close(p->tree);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
