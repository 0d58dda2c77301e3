/* The table of connections: a list in the order in which they got on last, the one that is silent for longest
 * first. */
#include "obs_conn.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "buf.h"
#include "clock.h"

struct obs_conn {
    struct obs_conn *before, *behind;
    int fd;
    bool is_shut;
    enum obs_conn_state state;
    int64_t since_ns; /* in that state */
};

struct obs_conns {
    pthread_mutex_t lock;
    struct obs_conn ends; /* of the list, which is a ring */
    uint32_t open, most;  /* open: not counting those that were shut and have not ended yet */
    pthread_t sweeper;
    pthread_cond_t over;
    bool is_over;
};

/* ---------------------------------------------------------------- the list */

static void unlink_conn(struct obs_conn *conn)
{
    conn->before->behind = conn->behind;
    conn->behind->before = conn->before;
}

static void link_last(struct obs_conns *conns, struct obs_conn *conn)
{
    conn->behind = &conns->ends;
    conn->before = conns->ends.before;
    conn->before->behind = conn;
    conns->ends.before = conn;
}

static void shut(struct obs_conns *conns, struct obs_conn *conn)
{
    shutdown(conn->fd, SHUT_RDWR);
    conn->is_shut = true;
    conns->open--;
}

/* Only what is ANSWERING may be all there is; then there are more for a moment. */
static void make_room(struct obs_conns *conns, const struct obs_conn *but)
{
    struct obs_conn *conn = conns->ends.behind;
    for (; conn != &conns->ends && conns->open > conns->most; conn = conn->behind)
        if (!conn->is_shut && conn->state != OBS_CONN_ANSWERING && conn != but)
            shut(conns, conn);
}

/* ---------------------------------------------------------------- what happens to one */

struct obs_conn *obs_conn_begin(struct obs_conns *conns, int fd)
{
    struct obs_conn *conn = xcalloc(1, sizeof *conn);
    conn->fd = fd;
    conn->since_ns = clock_mono_ns();
    pthread_mutex_lock(&conns->lock);
    conns->open++;
    link_last(conns, conn);
    make_room(conns, conn);
    pthread_mutex_unlock(&conns->lock);
    return conn;
}

void obs_conn_end(struct obs_conns *conns, struct obs_conn *conn)
{
    pthread_mutex_lock(&conns->lock);
    unlink_conn(conn);
    conns->open -= !conn->is_shut;
    pthread_mutex_unlock(&conns->lock);
    free(conn);
}

void obs_conn_is(struct obs_conns *conns, struct obs_conn *conn, enum obs_conn_state state)
{
    int64_t now_ns = clock_mono_ns();
    pthread_mutex_lock(&conns->lock);
    unlink_conn(conn);
    link_last(conns, conn);
    if (conn->state != state)
        conn->since_ns = now_ns;
    conn->state = state;
    pthread_mutex_unlock(&conns->lock);
}

/* ---------------------------------------------------------------- time */

static bool is_late(const struct obs_conn *conn, int64_t now_ns)
{
    int64_t most_s = conn->state == OBS_CONN_ARRIVING ? OBS_CONN_ARRIVAL_S : OBS_CONN_LEAVING_S;
    return conn->state != OBS_CONN_ANSWERING && now_ns - conn->since_ns > most_s * NS_PER_S;
}

static void sweep(struct obs_conns *conns, int64_t now_ns)
{
    for (struct obs_conn *conn = conns->ends.behind; conn != &conns->ends; conn = conn->behind)
        if (!conn->is_shut && is_late(conn, now_ns))
            shut(conns, conn);
}

void obs_conns_sweep(struct obs_conns *conns, int64_t now_ns)
{
    pthread_mutex_lock(&conns->lock);
    sweep(conns, now_ns);
    pthread_mutex_unlock(&conns->lock);
}

static void *run_sweeper(void *arg)
{
    struct obs_conns *conns = arg;
    struct timespec next;
    pthread_mutex_lock(&conns->lock);
    while (!conns->is_over) {
        clock_gettime(CLOCK_MONOTONIC, &next);
        next.tv_sec++;
        pthread_cond_timedwait(&conns->over, &conns->lock, &next);
        sweep(conns, clock_mono_ns());
    }
    pthread_mutex_unlock(&conns->lock);
    return NULL;
}

/* ---------------------------------------------------------------- life */

static void destroy(struct obs_conns *conns)
{
    pthread_cond_destroy(&conns->over);
    pthread_mutex_destroy(&conns->lock);
    free(conns);
}

struct obs_conns *obs_conns_open(uint32_t most)
{
    struct obs_conns *conns = xcalloc(1, sizeof *conns);
    pthread_condattr_t monotonic;
    conns->most = most;
    conns->ends.before = conns->ends.behind = &conns->ends;
    pthread_mutex_init(&conns->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&conns->over, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&conns->sweeper, NULL, run_sweeper, conns) == 0)
        return conns;
    destroy(conns);
    return NULL;
}

void obs_conns_close(struct obs_conns *conns)
{
    pthread_mutex_lock(&conns->lock);
    conns->is_over = true;
    pthread_cond_signal(&conns->over);
    pthread_mutex_unlock(&conns->lock);
    pthread_join(conns->sweeper, NULL);
    destroy(conns);
}
