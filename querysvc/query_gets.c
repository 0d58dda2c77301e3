/* Gets of keys. Few keys are looked up on the loop's thread; many would hold up everybody else, and have two
 * threads for themselves, which share one queue.
 *
 *   request ──► few: answered
 *      │
 *      └──► queue ──► a thread looks up ──► mailbox ──► answered
 *
 * When the queue is full, the loop does the work itself: who asks for more than the disk gives waits for it.
 */
#include "query.h"

#include <stdlib.h>

#include "query_rows.h"
#include "query_token.h"
#include "query_view_parts.h"
#include "telemetry.h"

enum { KEYS_MAX = 1000, FEW = 40, THREADS = 2, UNDER_WAY_MAX = 16 };

/* What a look into the view gave. */
struct found {
    struct key_rows rows;
    struct buf applied; /* with a session: how far the store was, as a token, behind its rows */
    bool is_closed; /* SH_UNAVAILABLE since the store is not open; else it has less than the token wants */
    enum sh_error error;
    char text[VIEW_ERROR_MAX]; /* of SH_INTERNAL */
};

/* One request, from the queue to its answer. */
struct get {
    struct mail mail;
    struct get *next;
    struct link_token token;
    struct buf keys, after; /* copies */
    struct found found;
    int64_t came_ns;
};

struct query_gets {
    struct query *query;
    struct view *view;
    struct mailbox mailbox;
    struct found found; /* of the loop's own */
    pthread_t threads[THREADS];
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t wake;
    struct get *head, **tail;
    size_t count; /* in the queue, looked up, and not answered yet */
    bool stop;
};

/* ---------------------------------------------------------------- looking up */

static bool is_in_store(struct view_store *store, struct slice after, char text[VIEW_ERROR_MAX])
{
    struct view_vector applied;
    text[0] = 0;
    return after.len == 0 ||
           (view_vector_load(store, &applied, text) != VIEW_FAILED && token_is_applied(&applied, after) > 0);
}

static enum sh_error look_into(struct view_store *store, struct mp keys, uint32_t count, struct slice after,
                               struct found *found)
{
    struct view_vector applied;
    if (!is_in_store(store, after, found->text))
        return found->text[0] != 0 ? SH_INTERNAL : SH_UNAVAILABLE;
    enum sh_error e = key_rows_get(store, keys, count, &found->rows, found->text);
    if (e != SH_OK || after.len == 0)
        return e;
    if (view_vector_load(store, &applied, found->text) == VIEW_FAILED)
        return SH_INTERNAL;
    token_pack(&applied, &found->applied);
    return SH_OK;
}

/* Any thread. */
static void look_up(struct view *view, struct slice keys, struct slice after, struct found *found)
{
    struct mp m = mp_of(keys);
    uint32_t count;
    found->text[0] = 0;
    found->applied.len = 0;
    found->error = SH_BAD_REQUEST;
    if (!mp_array(&m, &count))
        return;
    struct view_store *store = view_begin_read(view);
    found->is_closed = store == NULL;
    found->error = store == NULL ? SH_UNAVAILABLE : look_into(store, m, count, after, found);
    if (store != NULL)
        view_end_read(view);
}

static void answer(struct query *q, struct link_token token, const struct found *found, int64_t came_ns)
{
    enum sh_error e = found->error;
    telemetry_take(TELEMETRY_query_get, 0, (uint64_t)(clock_mono_ns() - came_ns));
    if (e == SH_INTERNAL)
        query_view_fail(q, token, found->text);
    else if (e == SH_UNAVAILABLE && found->is_closed)
        query_view_refuse_closed(q, token);
    else if (e == SH_UNAVAILABLE)
        query_view_refuse_older(q, token, "");
    else if (e != SH_OK)
        query_refuse(q, token, e, "a key has 1 to 4,096 bytes", 0);
    if (e != SH_OK)
        return;
    const struct msg_kv_get_reply reply = {
        .rows = buf_slice(&found->rows.rows), .hlc = found->rows.hlc, .applied = buf_slice(&found->applied)};
    query_answer(q, token, MSG_kv_get_reply, &reply);
}

/* ---------------------------------------------------------------- the threads */

static void free_found(struct found *found)
{
    key_rows_free(&found->rows);
    buf_free(&found->applied);
}

static void free_get(struct get *get)
{
    buf_free(&get->keys);
    buf_free(&get->after);
    free_found(&get->found);
    free(get);
}

/* NULL: the end has come. */
static struct get *take(struct query_gets *g)
{
    pthread_mutex_lock(&g->lock);
    while (g->head == NULL && !g->stop)
        pthread_cond_wait(&g->wake, &g->lock);
    struct get *get = g->stop ? NULL : g->head;
    if (get != NULL) {
        g->head = get->next;
        if (g->head == NULL)
            g->tail = &g->head;
    }
    pthread_mutex_unlock(&g->lock);
    return get;
}

static void *run(void *arg)
{
    struct query_gets *g = arg;
    struct get *get;
    uint32_t bunch = 0;
    while ((get = take(g)) != NULL) {
        get->found.rows.bunch = bunch;
        look_up(g->view, buf_slice(&get->keys), buf_slice(&get->after), &get->found);
        bunch = get->found.rows.bunch;
        if (mailbox_put_turn(&g->mailbox, &get->mail))
            loop_turn_once(g->query->service->loop); /* the next keys must not wait for more of it */
    }
    return NULL;
}

/* False: they have enough to do. */
static bool hand_over(struct query_gets *g, struct link_token token, struct slice keys, struct slice after,
                      int64_t came_ns)
{
    pthread_mutex_lock(&g->lock);
    bool has_room = g->count < UNDER_WAY_MAX;
    if (has_room) {
        struct get *get = xcalloc(1, sizeof *get);
        get->token = token;
        get->came_ns = came_ns;
        buf_append(&get->keys, keys.data, keys.len);
        buf_append(&get->after, after.data, after.len);
        *g->tail = get;
        g->tail = &get->next;
        g->count++;
        pthread_cond_signal(&g->wake);
    }
    pthread_mutex_unlock(&g->lock);
    return has_room;
}

static void on_done(void *arg, struct mail *first)
{
    struct query_gets *g = arg;
    size_t count = 0;
    for (struct mail *mail = first, *next; mail != NULL; mail = next) {
        struct get *get = (struct get *)mail;
        next = mail->next;
        if (!g->stop) /* which only the loop sets */
            answer(g->query, get->token, &get->found, get->came_ns);
        free_get(get);
        count++;
    }
    pthread_mutex_lock(&g->lock);
    g->count -= count;
    pthread_mutex_unlock(&g->lock);
}

/* ---------------------------------------------------------------- the loop */

void query_gets_answer(struct query *q, struct link_token token, const struct msg_kv_get *m)
{
    struct query_gets *g = query_gets_of(q);
    struct mp keys = mp_of(m->keys);
    uint32_t count;
    int64_t came_ns = clock_mono_ns();
    if (!mp_array(&keys, &count) || count == 0 || count > KEYS_MAX) {
        query_refuse(q, token, SH_BAD_REQUEST, "1 to 1,000 keys are asked for", 0);
        return;
    }
    telemetry_add(TELEMETRY_query_got, 0, count);
    struct slice after = query_group_token(q, &query_view_state(q)->applied, m->after);
    if (count > FEW && hand_over(g, token, m->keys, after, came_ns))
        return;
    look_up(g->view, m->keys, after, &g->found);
    answer(q, token, &g->found, came_ns);
}

void query_gets_drop(struct query_gets *g, uint64_t session)
{
    struct get *get;
    pthread_mutex_lock(&g->lock);
    g->tail = &g->head;
    while ((get = *g->tail) != NULL) {
        if (get->token.session != session) {
            g->tail = &get->next;
            continue;
        }
        *g->tail = get->next;
        free_get(get);
        g->count--;
    }
    pthread_mutex_unlock(&g->lock);
}

struct query_gets *query_gets_open(struct query *q, struct view *view)
{
    struct query_gets *g = xcalloc(1, sizeof *g);
    g->query = q;
    g->view = view;
    g->tail = &g->head;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->wake, NULL);
    mailbox_open(&g->mailbox, q->service->loop, on_done, g);
    for (size_t i = 0; i < THREADS; i++) {
        if (pthread_create(&g->threads[i], NULL, run, g) != 0) {
            log_error("cannot start a thread; ending at once", log_text("thread", "gets"));
            abort();
        }
        pthread_setname_np(g->threads[i], "gets");
    }
    return g;
}

void query_gets_close(struct query_gets *g)
{
    pthread_mutex_lock(&g->lock);
    g->stop = true;
    pthread_cond_broadcast(&g->wake);
    pthread_mutex_unlock(&g->lock);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(g->threads[i], NULL);
    mailbox_close(&g->mailbox);
    for (struct get *get = g->head, *next; get != NULL; get = next) {
        next = get->next;
        free_get(get);
    }
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->wake);
    free_found(&g->found);
    free(g);
}
