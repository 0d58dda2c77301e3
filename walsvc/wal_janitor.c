/* The janitor's thread: tasks first, then what is due, one step at a time. */
#include "wal_janitor.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "wal_fatal.h"

/* A question that is to be answered, or a segment that is to be read. */
struct job {
    struct wal_task task;
    struct wal_janitor *janitor;
    uint64_t base_lsn;
    struct link_token token;
    uint32_t type;
    struct buf request;
};

struct wal_janitor {
    struct wal_upkeep *upkeep;
    atomic_bool *stop;
    void (*on_answer)(void *arg, struct link_token token, uint32_t type, struct buf *body);
    void *arg;
    pthread_t thread;
    int64_t tidy_due_ns, scrub_due_ns; /* the thread's own; monotonic */
    pthread_mutex_t lock;              /* over what follows */
    pthread_cond_t wake;
    struct wal_task *first, **last;
    size_t jobs; /* waiting */
    bool poked, changed;
    enum wal_next next;
    struct wal_upkeep_settings settings; /* when changed */
    bool gone_changed;
    struct wal_gone gone; /* the same */
};

static struct wal_upkeep_time now(void)
{
    return (struct wal_upkeep_time){clock_real_ns(), clock_mono_ns()};
}

static void drop_job(struct wal_task *task)
{
    struct job *job = (struct job *)task;
    buf_free(&job->request);
    free(job);
}

/* ---- without the lock ---- */

static void do_job(struct wal_task *task)
{
    struct job *job = (struct job *)task;
    struct wal_janitor *j = job->janitor;
    struct buf body = {0};
    uint32_t type;
    wal_upkeep_answer(j->upkeep, job->type, buf_slice(&job->request), now(), &type, &body);
    j->on_answer(j->arg, job->token, type, &body);
    drop_job(task);
}

static void look(struct wal_task *task)
{
    const struct job *job = (struct job *)task;
    wal_upkeep_look(job->janitor->upkeep, job->base_lsn);
    drop_job(task);
}

static void do_what_is_due(struct wal_janitor *j)
{
    int64_t now_ns = clock_mono_ns();
    if (j->tidy_due_ns <= now_ns)
        j->tidy_due_ns = wal_upkeep_tidy(j->upkeep, now());
    if (j->scrub_due_ns <= now_ns)
        j->scrub_due_ns = wal_upkeep_scrub(j->upkeep, now());
    wal_upkeep_tell_figures(j->upkeep);
}

/* ---- with the lock ---- */

static bool is_job(const struct wal_task *task)
{
    return task->drop == drop_job;
}

static struct wal_task *take_task(struct wal_janitor *j)
{
    struct wal_task *task = j->first;
    if (task == NULL)
        return NULL;
    j->first = task->next;
    if (j->first == NULL)
        j->last = &j->first;
    j->jobs -= is_job(task);
    return task;
}

static void put_task(struct wal_janitor *j, struct wal_task *task)
{
    task->next = NULL;
    *j->last = task;
    j->last = &task->next;
    j->jobs += is_job(task);
    pthread_cond_signal(&j->wake);
}

/* Takes over what others have left. */
static void take_news(struct wal_janitor *j)
{
    j->upkeep->next = j->next;
    if (j->changed) {
        wal_upkeep_set(j->upkeep, &j->settings);
        j->tidy_due_ns = j->scrub_due_ns = 0;
    }
    if (j->gone_changed)
        wal_upkeep_gone(j->upkeep, &j->gone);
    j->upkeep->has_grown = j->upkeep->has_grown || j->poked;
    if (j->poked || j->gone_changed)
        j->tidy_due_ns = 0;
    j->changed = j->poked = j->gone_changed = false;
}

static void wait_until_due(struct wal_janitor *j)
{
    int64_t due_ns = j->tidy_due_ns < j->scrub_due_ns ? j->tidy_due_ns : j->scrub_due_ns;
    struct timespec due = {due_ns / NS_PER_S, due_ns % NS_PER_S};
    if (due_ns == INT64_MAX)
        pthread_cond_wait(&j->wake, &j->lock);
    else if (due_ns > clock_mono_ns())
        pthread_cond_timedwait(&j->wake, &j->lock, &due);
}

static void *run(void *arg)
{
    struct wal_janitor *j = arg;
    pthread_mutex_lock(&j->lock);
    while (!atomic_load(j->stop)) {
        take_news(j);
        struct wal_task *task = take_task(j);
        pthread_mutex_unlock(&j->lock);
        if (task != NULL) {
            j->upkeep->has_grown = j->upkeep->has_grown || !is_job(task);
            task->work(task);
            j->tidy_due_ns = 0; /* holds or segments may have changed, and with them what is due */
        } else {
            do_what_is_due(j);
        }
        pthread_mutex_lock(&j->lock);
        if (!atomic_load(j->stop) && j->first == NULL && !j->poked && !j->changed && !j->gone_changed)
            wait_until_due(j);
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

/* ---- from other threads ---- */

struct wal_janitor *wal_janitor_start(const struct wal_janitor_options *o)
{
    struct wal_janitor *j = xcalloc(1, sizeof *j);
    pthread_condattr_t attr;
    *j = (struct wal_janitor){.upkeep = o->upkeep, .stop = o->stop, .on_answer = o->on_answer, .arg = o->arg};
    j->last = &j->first;
    pthread_mutex_init(&j->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&j->wake, &attr);
    pthread_condattr_destroy(&attr);
    int result = pthread_create(&j->thread, NULL, run, j);
    if (result != 0)
        wal_fatal("cannot start a thread", o->upkeep->options.dir, -result);
    pthread_setname_np(j->thread, "janitor");
    return j;
}

/* False, and dropped: too many wait. */
static bool put_job(struct wal_janitor *j, struct job *job)
{
    pthread_mutex_lock(&j->lock);
    bool takes = j->jobs < WAL_JANITOR_JOBS;
    if (takes)
        put_task(j, &job->task);
    pthread_mutex_unlock(&j->lock);
    if (!takes)
        drop_job(&job->task);
    return takes;
}

enum sh_error wal_janitor_ask(struct wal_janitor *j, struct link_token token, uint32_t type,
                              struct slice request)
{
    if (request.len > WAL_JANITOR_REQUEST_MAX)
        return SH_TOO_LARGE;
    struct job *job = xcalloc(1, sizeof *job);
    *job =
        (struct job){.task = {.work = do_job, .drop = drop_job}, .janitor = j, .token = token, .type = type};
    buf_append(&job->request, request.data, request.len);
    return put_job(j, job) ? SH_OK : SH_OVERLOADED;
}

void wal_janitor_look(struct wal_janitor *j, uint64_t base_lsn)
{
    struct job *job = xcalloc(1, sizeof *job);
    *job = (struct job){.task = {.work = look, .drop = drop_job}, .janitor = j, .base_lsn = base_lsn};
    put_job(j, job);
}

void wal_janitor_do(struct wal_janitor *j, struct wal_task *task)
{
    pthread_mutex_lock(&j->lock);
    put_task(j, task);
    pthread_mutex_unlock(&j->lock);
}

void wal_janitor_next(struct wal_janitor *j, enum wal_next next)
{
    pthread_mutex_lock(&j->lock);
    j->poked = j->poked || next != j->next || next == WAL_NEXT_READY;
    j->next = next;
    pthread_cond_signal(&j->wake);
    pthread_mutex_unlock(&j->lock);
}

void wal_janitor_set(struct wal_janitor *j, const struct wal_upkeep_settings *settings)
{
    pthread_mutex_lock(&j->lock);
    j->settings = *settings;
    j->changed = true;
    pthread_cond_signal(&j->wake);
    pthread_mutex_unlock(&j->lock);
}

void wal_janitor_gone(struct wal_janitor *j, const struct wal_gone *gone)
{
    pthread_mutex_lock(&j->lock);
    j->gone = *gone;
    j->gone_changed = true;
    pthread_cond_signal(&j->wake);
    pthread_mutex_unlock(&j->lock);
}

void wal_janitor_stop(struct wal_janitor *j)
{
    struct wal_task *task;
    pthread_mutex_lock(&j->lock);
    atomic_store(j->stop, true);
    pthread_cond_signal(&j->wake);
    pthread_mutex_unlock(&j->lock);
    pthread_join(j->thread, NULL);
    while ((task = take_task(j)) != NULL)
        if (task->drop != NULL)
            task->drop(task);
    pthread_cond_destroy(&j->wake);
    pthread_mutex_destroy(&j->lock);
    free(j);
}
