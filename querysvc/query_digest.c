/* Digests of the view. Each takes as long as it takes to read all rows, so it has a thread of its own; one at
 * a time, the others wait for their turn.
 *
 *   request ──► waiting ──► its thread reads ──► answered
 *                  │              │
 *                  └──────────────┴──► its session has gone, or the view is closed: ended
 */
#include "query.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "view.h"
#include "view_digest.h"

enum { WAITS_MAX = 16 };

/* At most one is under way: the first. */
struct digest_wait {
    struct digest_wait *next;
    struct link_token token;
    uint64_t at_ms; /* 0: when its turn comes */
};

struct query_digest {
    struct query *query;
    struct view *view;
    struct digest_wait *waits;
    size_t wait_count;
    struct mailbox mailbox;
    /* Of the thread, while it runs; then the loop's again. */
    bool runs;
    pthread_t thread;
    struct mail mail; /* it is done */
    atomic_bool stop;
    uint64_t at_ms;
    enum sh_error error;
    char text[VIEW_ERROR_MAX];
    struct view_digest result;
};

/* ---------------------------------------------------------------- the thread */

static bool must_end(void *arg)
{
    struct query_digest *d = arg;
    return atomic_load(&d->stop) || view_must_end_read(d->view);
}

static void *run(void *arg)
{
    struct query_digest *d = arg;
    struct view_store *store = view_begin_read(d->view);
    if (store != NULL) {
        d->error = view_digest_make(store, d->at_ms, must_end, d, &d->result, d->text);
        view_end_read(d->view);
    } else {
        static const char text[] = "the view is not open";
        d->error = SH_UNAVAILABLE;
        memcpy(d->text, text, sizeof text);
    }
    mailbox_put(&d->mailbox, &d->mail);
    return NULL;
}

/* ---------------------------------------------------------------- the loop */

static struct digest_wait *take_first(struct query_digest *d)
{
    struct digest_wait *first = d->waits;
    d->waits = first->next;
    d->wait_count--;
    return first;
}

static void begin_next(struct query_digest *d)
{
    while (!d->runs && d->waits != NULL) {
        d->at_ms = d->waits->at_ms > 0 ? d->waits->at_ms : (uint64_t)(clock_real_ns() / NS_PER_MS);
        d->text[0] = 0;
        atomic_store(&d->stop, false);
        d->runs = pthread_create(&d->thread, NULL, run, d) == 0;
        if (d->runs)
            return;
        struct digest_wait *first = take_first(d);
        query_refuse(d->query, first->token, SH_OVERLOADED, "no thread can be started", 0);
        free(first);
    }
}

static void pack_digest(msgpack_packer *pk, const struct digest128 *digest)
{
    mp_pack_bin(pk, slice_of(digest->bytes, sizeof digest->bytes));
}

static void answer_digest(struct query *q, struct link_token token, const struct query_digest *d)
{
    const struct view_digest *r = &d->result;
    struct buf applied = {0}, kinds = {0};
    msgpack_packer pk;
    mp_packer(&pk, &applied);
    msgpack_pack_array(&pk, r->vector.count);
    for (size_t i = 0; i < r->vector.count; i++) {
        msgpack_pack_array(&pk, 2);
        mp_pack_bin(&pk, slice_of(r->vector.all[i].log.bytes, sizeof r->vector.all[i].log.bytes));
        msgpack_pack_uint64(&pk, r->vector.all[i].lsn);
    }
    mp_packer(&pk, &kinds);
    msgpack_pack_array(&pk, r->kind_count);
    for (size_t i = 0; i < r->kind_count; i++) {
        msgpack_pack_array(&pk, 3);
        msgpack_pack_uint8(&pk, r->kinds[i].kind);
        msgpack_pack_uint64(&pk, r->kinds[i].rows);
        pack_digest(&pk, &r->kinds[i].digest);
    }
    const struct msg_view_digest_reply reply = {
        .digest = slice_of(r->digest.bytes, sizeof r->digest.bytes),
        .at_ms = d->at_ms,
        .applied = buf_slice(&applied),
        .kinds = buf_slice(&kinds),
    };
    query_answer(q, token, MSG_view_digest_reply, &reply);
    buf_free(&applied);
    buf_free(&kinds);
}

static void on_done(void *arg, struct mail *mail)
{
    struct query_digest *d = arg;
    (void)mail;
    if (!d->runs)
        return;
    pthread_join(d->thread, NULL);
    d->runs = false;
    struct digest_wait *first = take_first(d);
    if (d->error == SH_OK)
        answer_digest(d->query, first->token, d);
    else
        query_refuse(d->query, first->token, d->error, d->text, 0);
    if (d->error == SH_INTERNAL)
        log_error("the view cannot be read", log_text("error", d->text));
    free(first);
    begin_next(d);
}

void query_on_view_digest(struct query *q, const struct link_request *request)
{
    struct query_digest *d = q->digest;
    struct msg_view_digest m;
    if (query_view_refuse_absent(q, request->token))
        return;
    enum sh_error e = msg_decode(request->type, request->body, &m);
    if (e != SH_OK) {
        query_refuse(q, request->token, e, "malformed", 0);
        return;
    }
    if (d->wait_count == WAITS_MAX) {
        query_refuse(q, request->token, SH_OVERLOADED, "too many digests are asked for", 0);
        return;
    }
    struct digest_wait *wait = xcalloc(1, sizeof *wait), **at = &d->waits;
    *wait = (struct digest_wait){.token = request->token, .at_ms = m.at_ms};
    while (*at != NULL)
        at = &(*at)->next;
    *at = wait;
    d->wait_count++;
    begin_next(d);
}

/* The one that is under way is only told to end. */
void query_digest_drop(struct query *q, uint64_t session)
{
    struct query_digest *d = q->digest;
    if (d == NULL)
        return;
    struct digest_wait **at = &d->waits, *wait;
    if (d->runs) {
        if (d->waits->token.session == session)
            atomic_store(&d->stop, true);
        at = &d->waits->next;
    }
    while ((wait = *at) != NULL) {
        if (wait->token.session != session) {
            at = &wait->next;
            continue;
        }
        *at = wait->next;
        d->wait_count--;
        free(wait);
    }
}

/* ---------------------------------------------------------------- life */

void query_digest_open(struct query *q)
{
    struct query_digest *d = xcalloc(1, sizeof *d);
    d->query = q;
    d->view = query_view_of(q);
    q->digest = d;
    mailbox_open(&d->mailbox, q->service->loop, on_done, d);
}

void query_digest_close(struct query *q)
{
    struct query_digest *d = q->digest;
    if (d == NULL)
        return;
    atomic_store(&d->stop, true);
    if (d->runs)
        pthread_join(d->thread, NULL);
    d->runs = false; /* its mail is taken for nothing */
    mailbox_close(&d->mailbox);
    while (d->waits != NULL)
        free(take_first(d));
    q->digest = NULL;
    free(d);
}
