/* Gets without waiting: what waits for the same moment goes out together, as one question for several keys.
 *
 *   sh_kv_get_async ──► waiting ──► a batch, of BATCHES_OUT at most ──► its answer ──► called back
 *                          ▲                                              │
 *                          └──────── keys that the answer had no room for ┘
 *
 * With nothing out a get goes at once, alone; when all batches are out, those that come meanwhile are the
 * next one. With several replication groups each group's client has its own; what came before it was known
 * that there are several is given to these when the user's node refuses it. Nothing here is fatal. */
#include "sh_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCHES_OUT = 2, BATCH_KEYS = 256, WAITING_MAX = 65536 };

struct shc_get {
    struct shc_get *next;
    sh_kv_get_fn *fn;
    void *arg;
    int64_t deadline_ns;
    size_t len;
    uint8_t key[];
};

struct batch {
    struct shc_call call; /* first */
    struct shc_get *first, **tail;
    uint32_t count;
};

/* ---------------------------------------------------------------- what waits */

/* With the lock. SH_OK: it is taken over. *mail: the loop is to be told. */
static enum sh_error add(struct sh_client *c, struct shc_get *get, bool *mail)
{
    struct shc_gets *g = &c->gets;
    if (g->closing || g->waiting == WAITING_MAX)
        return g->closing ? SH_UNAVAILABLE : SH_OVERLOADED;
    get->next = NULL;
    *g->tail = get;
    g->tail = &get->next;
    g->waiting++;
    *mail = !g->woken && !g->mailed && !loop_is_mine(c->loop); /* a callback's round ends with a look */
    g->mailed = g->mailed || *mail;
    g->woken = true;
    return SH_OK;
}

static enum sh_error put(struct sh_client *c, struct shc_get *get)
{
    bool mail = false;
    pthread_mutex_lock(&c->gets.lock);
    enum sh_error e = add(c, get, &mail);
    pthread_mutex_unlock(&c->gets.lock);
    if (mail)
        shc_visit(c, &c->gets.wake);
    return e;
}

/* ---------------------------------------------------------------- the loop's end */

static void finish(struct sh_client *c, struct shc_get *get, enum sh_error error, const char *detail,
                   const struct sh_row *row)
{
    shc_detail(detail);
    shc_groups_begin_callback(c);
    get->fn(get->arg, error, row);
    shc_groups_end_callback(c);
    free(get);
}

/* Calls back for each row that came; returns the gets that there was none for. */
static struct shc_get *take_rows(struct batch *b)
{
    struct msg_kv_get_reply reply;
    struct sh_row row;
    struct mp rows = {0};
    uint32_t count = 0;
    bool good = msg_decode(MSG_kv_get_reply, buf_slice(&b->call.reply), &reply) == SH_OK;
    if (good)
        rows = mp_of(reply.rows);
    good = good && mp_array(&rows, &count) && count > 0 && count <= b->count;
    while (good && count > 0) {
        struct shc_get *get = b->first;
        good = shc_row_next(&rows, slice_of(get->key, get->len), &row);
        if (!good)
            break;
        b->first = get->next;
        count--;
        finish(b->call.client, get, SH_OK, "", &row);
    }
    if (!good) {
        b->call.error = SH_INTERNAL;
        snprintf(b->call.detail, sizeof b->call.detail, "malformed answer");
    }
    return b->first;
}

static void put_back(struct shc_gets *g, struct shc_get *first)
{
    struct shc_get **last = &first;
    pthread_mutex_lock(&g->lock);
    for (; *last != NULL; last = &(*last)->next)
        g->waiting++;
    *last = g->head;
    if (g->head == NULL)
        g->tail = last;
    g->head = first;
    pthread_mutex_unlock(&g->lock);
}

static struct sh_client *holder_of(struct sh_client *c, const struct shc_get *get)
{
    return shc_client_for(c, GROUP_KEY, slice_of(get->key, get->len));
}

/* Nothing of it can be answered, but a node of another group may. */
static void end_unanswered(struct sh_client *c, const struct shc_call *call, struct shc_get *left)
{
    for (struct shc_get *next; left != NULL; left = next) {
        struct sh_client *holder = call->error == SH_WRONG_GROUP ? holder_of(c, left) : c;
        next = left->next;
        if (holder == c || put(holder, left) != SH_OK)
            finish(c, left, call->error, call->detail, NULL);
    }
}

static void on_end(struct shc_call *call)
{
    struct batch *b = (struct batch *)call;
    struct sh_client *c = call->client;
    struct shc_get *left = b->first;
    c->gets.out--;
    if (call->error == SH_OK)
        left = take_rows(b);
    if (call->error != SH_OK)
        end_unanswered(c, call, left);
    else if (left != NULL)
        put_back(&c->gets, left);
    shc_call_free(call);
    free(b);
}

/* NULL: nothing waits. */
static struct batch *take_batch(struct shc_gets *g)
{
    struct batch *b = NULL;
    pthread_mutex_lock(&g->lock);
    g->woken = false;
    if (g->head != NULL) {
        b = xcalloc(1, sizeof *b);
        b->first = g->head;
        b->tail = &b->first;
    }
    while (b != NULL && *b->tail != NULL && b->count < BATCH_KEYS) {
        b->call.deadline_ns = (*b->tail)->deadline_ns;
        b->tail = &(*b->tail)->next;
        b->count++;
    }
    if (b != NULL) {
        g->head = *b->tail;
        *b->tail = NULL;
        g->waiting -= b->count;
    }
    if (g->head == NULL)
        g->tail = &g->head;
    pthread_mutex_unlock(&g->lock);
    return b;
}

static void send_batch(struct sh_client *c, struct batch *b)
{
    struct buf keys = {0};
    msgpack_packer pk;
    mp_packer(&pk, &keys);
    msgpack_pack_array(&pk, b->count);
    for (const struct shc_get *get = b->first; get != NULL; get = get->next)
        mp_pack_bin(&pk, slice_of(get->key, get->len));
    const struct msg_kv_get ask = {.keys = buf_slice(&keys)};
    msg_encode(MSG_kv_get, &ask, &b->call.body);
    buf_free(&keys);
    b->call.type = MSG_kv_get;
    b->call.reply_type = MSG_kv_get_reply;
    b->call.on_end = on_end;
    b->call.greets = c->root == NULL; /* then it is known which groups there are */
    c->gets.out++;
    shc_call_here(c, &b->call);
}

void shc_gets_pump(struct sh_client *c)
{
    struct batch *b;
    while (c->gets.out < BATCHES_OUT && (b = take_batch(&c->gets)) != NULL)
        send_batch(c, b);
}

static void on_wake(struct sh_client *c, void *arg)
{
    (void)arg;
    pthread_mutex_lock(&c->gets.lock);
    c->gets.mailed = false;
    pthread_mutex_unlock(&c->gets.lock);
} /* the round's hook sends */

void shc_gets_open(struct shc_gets *g)
{
    pthread_mutex_init(&g->lock, NULL);
    g->tail = &g->head;
    g->wake = (struct shc_mail){.fn = on_wake};
}

void shc_gets_stop(struct shc_gets *g)
{
    pthread_mutex_lock(&g->lock);
    g->closing = true;
    pthread_mutex_unlock(&g->lock);
}

void shc_gets_end(struct sh_client *c)
{
    struct batch *b;
    while ((b = take_batch(&c->gets)) != NULL) {
        struct shc_get *next;
        for (struct shc_get *get = b->first; get != NULL; get = next) {
            next = get->next;
            finish(c, get, SH_UNAVAILABLE, "the client was closed", NULL);
        }
        free(b);
    }
}

void shc_gets_close(struct shc_gets *g)
{
    pthread_mutex_destroy(&g->lock);
}

/* ---------------------------------------------------------------- the callers' end */

static enum sh_error refuse(enum sh_error error, const char *text)
{
    shc_detail(text);
    return error;
}

enum sh_error sh_kv_get_async(struct sh_client *c, const struct sh_key *key, sh_kv_get_fn *fn, void *arg)
{
    if (key->len == 0)
        return refuse(SH_BAD_REQUEST, "a key has 1 to 4,096 bytes");
    if (key->len > KEY_MAX)
        return refuse(SH_TOO_LARGE, "a key has 1 to 4,096 bytes");
    struct shc_get *get = xmalloc(sizeof *get + key->len);
    get->fn = fn;
    get->arg = arg;
    get->deadline_ns = clock_mono_ns() + (int64_t)c->options.timeout_ms * NS_PER_MS;
    get->len = key->len;
    memcpy(get->key, key->bytes, key->len);
    enum sh_error e = put(holder_of(c, get), get);
    if (e == SH_OK)
        return SH_OK;
    free(get);
    return refuse(e, e == SH_OVERLOADED ? "65,536 gets wait already" : "the client is being closed");
}
