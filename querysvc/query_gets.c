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

#include <stdio.h>
#include <stdlib.h>

#include "query_rows.h"
#include "query_token.h"
#include "query_view_parts.h"

enum { KEYS_MAX = 1000, FEW = 16, THREADS = 2, QUEUE_MAX = 256 };

/* One request, from the queue to its answer. */
struct get {
    struct mail mail;
    struct get *next;
    struct link_token token;
    struct buf keys, after; /* copies */
    struct key_rows rows;
    enum sh_error error;
    char text[VIEW_ERROR_MAX];
};

struct query_gets {
    struct query *query;
    struct view *view;
    struct mailbox mailbox;
    struct key_rows rows; /* of the loop's own */
    pthread_t threads[THREADS];
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t wake;
    struct get *head, **tail;
    size_t count;
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

/* SH_UNAVAILABLE: the store is not open, or has less than `after` wants; SH_INTERNAL: it failed, as text
 * says. Any thread. */
static enum sh_error look_up(struct view *view, struct slice keys, struct slice after, struct key_rows *rows,
                             char text[VIEW_ERROR_MAX])
{
    struct mp m = mp_of(keys);
    uint32_t count;
    enum sh_error e;
    text[0] = 0;
    if (!mp_array(&m, &count))
        return SH_BAD_REQUEST;
    struct view_store *store = view_begin_read(view);
    if (store == NULL)
        return SH_UNAVAILABLE;
    if (is_in_store(store, after, text))
        e = key_rows_get(store, m, count, rows, text);
    else
        e = text[0] != 0 ? SH_INTERNAL : SH_UNAVAILABLE;
    view_end_read(view);
    return e;
}

static void answer(struct query *q, struct link_token token, enum sh_error e, const struct key_rows *rows,
                   bool has_session, const char *text)
{
    if (e == SH_INTERNAL)
        query_view_fail(q, token, text);
    else if (e == SH_UNAVAILABLE && query_view_state(q)->opened)
        query_view_refuse_older(q, token, "");
    else if (e == SH_UNAVAILABLE)
        query_view_refuse_closed(q, token);
    else if (e != SH_OK)
        query_refuse(q, token, e, "a key has 1 to 4,096 bytes", 0);
    if (e != SH_OK)
        return;
    struct msg_kv_get_reply reply = {.rows = buf_slice(&rows->rows), .hlc = rows->hlc};
    if (has_session)
        reply.applied = query_view_applied(q);
    query_answer(q, token, MSG_kv_get_reply, &reply);
}

/* ---------------------------------------------------------------- the threads */

static void free_get(struct get *get)
{
    buf_free(&get->keys);
    buf_free(&get->after);
    key_rows_free(&get->rows);
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
        g->count--;
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
    while ((get = take(g)) != NULL) {
        get->error = look_up(g->view, buf_slice(&get->keys), buf_slice(&get->after), &get->rows, get->text);
        if (mailbox_put_turn(&g->mailbox, &get->mail))
            loop_turn_once(g->query->service->loop); /* the next keys must not wait for more of it */
    }
    return NULL;
}

/* False: they have enough to do. */
static bool hand_over(struct query_gets *g, struct link_token token, struct slice keys, struct slice after)
{
    pthread_mutex_lock(&g->lock);
    bool has_room = g->count < QUEUE_MAX;
    if (has_room) {
        struct get *get = xcalloc(1, sizeof *get);
        get->token = token;
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
    for (struct mail *mail = first, *next; mail != NULL; mail = next) {
        struct get *get = (struct get *)mail;
        next = mail->next;
        if (!g->stop) /* which only the loop sets */
            answer(g->query, get->token, get->error, &get->rows, get->after.len > 0, get->text);
        free_get(get);
    }
}

/* ---------------------------------------------------------------- the loop */

void query_gets_answer(struct query *q, struct link_token token, const struct msg_kv_get *m)
{
    struct query_gets *g = query_gets_of(q);
    char text[VIEW_ERROR_MAX];
    struct mp keys = mp_of(m->keys);
    uint32_t count;
    if (!mp_array(&keys, &count) || count == 0 || count > KEYS_MAX) {
        query_refuse(q, token, SH_BAD_REQUEST, "1 to 1,000 keys are asked for", 0);
        return;
    }
    struct slice after = query_group_token(q, &query_view_state(q)->applied, m->after);
    if (count > FEW && hand_over(g, token, m->keys, after))
        return;
    enum sh_error e = look_up(g->view, m->keys, after, &g->rows, text);
    answer(q, token, e, &g->rows, m->after.len > 0, text);
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
    key_rows_free(&g->rows);
    free(g);
}
