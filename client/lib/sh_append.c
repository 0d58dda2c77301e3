/* Appends, the callers' end: entries are checked and encoded by the caller's own thread, straight into the
 * batch that is open. Nothing here is fatal. */
#include "sh_internal.h"

#include <stdio.h>
#include <string.h>

#include "hlc.h"
#include "log.h"

static enum sh_error refuse(enum sh_error error, const char *text)
{
    shc_detail(text);
    return error;
}

/* Checks what one call brings, so that it can't spoil the batch of others; *bytes: what it takes encoded. */
static enum sh_error check_entries(const struct sh_entry *entries, uint32_t count, enum sh_ack ack,
                                   size_t *bytes)
{
    *bytes = 0;
    if (entries == NULL || count == 0 || (unsigned)ack > SH_ACK_ALL)
        return refuse(SH_BAD_REQUEST, "an append has 1 or more entries and a known acknowledgement");
    if (count > ENTRIES_MAX)
        return refuse(SH_TOO_LARGE, "an append has at most 65,536 entries");
    for (uint32_t i = 0; i < count; i++) {
        const struct sh_entry *e = &entries[i];
        const char *why;
        enum sh_error bad =
            e->kind == SH_ENTRY_EVENT && e->header_count == 0 ? SH_OK : shc_entry_check(e, &why);
        if (bad != SH_OK)
            return refuse(bad, why);
        size_t stream_bytes = e->stream != NULL ? strlen(e->stream) : 0;
        if (stream_bytes > STREAM_NAME_MAX)
            return refuse(SH_TOO_LARGE, "a stream's name has at most 255 bytes");
        if (stream_bytes > 0 && !utf8_valid(slice_of(e->stream, stream_bytes)))
            return refuse(SH_BAD_REQUEST, "a stream's name is UTF-8");
        if (e->payload == NULL && e->payload_bytes > 0)
            return refuse(SH_BAD_REQUEST, "a payload is missing");
        if (e->payload_bytes > FRAME_BYTES_MAX)
            return refuse(SH_TOO_LARGE, "the payload exceeds the largest frame");
        *bytes += shc_entry_bytes(e, stream_bytes);
        if (*bytes > FRAME_BYTES_MAX)
            return refuse(SH_TOO_LARGE, "the entries exceed the largest frame");
    }
    return SH_OK;
}

enum sh_error shc_append_check(struct sh_client *c, const struct sh_entry *entries, uint32_t count,
                               enum sh_ack ack, size_t *bytes)
{
    enum sh_error e = check_entries(entries, count, ack, bytes);
    if (e != SH_OK)
        return e;
    unsigned most = atomic_load(&c->most_bytes);
    if (most > 0 && *bytes + SHC_ARRAY_HEAD > most)
        return refuse(SH_TOO_LARGE, "the entries exceed what the node takes in one append");
    return SH_OK;
}

/* ---- with the queue's lock ---- */

static enum sh_error wait_for_room(struct sh_client *c, size_t bytes, int64_t deadline_ns)
{
    struct shc_queue *q = &c->queue;
    struct timespec until = {.tv_sec = deadline_ns / NS_PER_S, .tv_nsec = deadline_ns % NS_PER_S};
    if (q->closed)
        return refuse(SH_UNAVAILABLE, "the client is being closed; not appended");
    while (q->bytes > 0 && q->bytes + bytes > c->options.queue_bytes) {
        if (shc_on_own_thread(c))
            return refuse(SH_OVERLOADED, "the client's queue is full, and a callback cannot wait for room");
        q->room_waiters++;
        int failed = pthread_cond_timedwait(&q->room, &q->lock, &until);
        q->room_waiters--;
        if (failed != 0 && clock_mono_ns() >= deadline_ns)
            return refuse(SH_TIMEOUT, "the client's queue stayed full; not appended");
    }
    return SH_OK;
}

/* Closes the batch; says whether the loop waits to hear that. */
static bool close_batch(struct shc_queue *q, struct shc_batch *b)
{
    struct shc_lane *lane = &q->lanes[b->ack];
    bool wake = lane->wake_on_close;
    shc_batch_close(q, b);
    lane->wake_on_close = false;
    return wake;
}

static size_t shared_bytes_max(struct sh_client *c)
{
    size_t most = atomic_load(&c->most_bytes);
    most = most > 0 ? most - SHC_ARRAY_HEAD : SHC_UNKNOWN_BYTES;
    return c->options.batch_bytes < most ? c->options.batch_bytes : most;
}

/* What one call brings. */
struct arrival {
    const struct sh_entry *entries;
    uint32_t count;
    enum sh_ack ack;
    size_t bytes; /* encoded */
    bool waits;   /* the caller does */
    int64_t now_ns;
    uint64_t hlc;
    struct slice first; /* as in struct shc_extra */
    struct id16 log;    /* the same */
    bool alone;         /* in a frame of its own */
};

/* Whether the batch is left until the others have come back: its first caller, who waits for it anyway, sees
 * to it that this doesn't take too long. */
static bool is_held(struct shc_lane *lane, struct shc_batch *b, const struct arrival *a)
{
    bool held = shc_company_waits(&lane->company, a->now_ns);
    if (held && a->waits && b->count == 0) {
        b->led = true;
        lane->wake_on_close = true;
    }
    return held && b->led;
}

/* A batch that may have to be prepared again for another log has only callers who can do that; and it has one
 * log. */
static bool may_share(const struct shc_batch *b, const struct arrival *a)
{
    if (a->alone || (!a->waits && !id16_is_zero(b->log)) || (b->call_count > 0 && !id16_is_zero(a->log)))
        return false;
    return id16_is_zero(a->log) || id16_is_zero(b->log) || id16_equal(a->log, b->log);
}

/* Puts the entries into their lane's open batch, or a new one when they don't fit; *wake: the loop must be
 * woken. */
static struct shc_batch *add_entries(struct sh_client *c, const struct arrival *a, bool *wake)
{
    struct shc_queue *q = &c->queue;
    size_t bytes_max = shared_bytes_max(c);
    struct shc_lane *lane = &q->lanes[a->ack];
    struct shc_batch *b = lane->open;
    *wake = a->waits && shc_company_came(&lane->company, a->now_ns);
    if (b != NULL && (!may_share(b, a) || b->count + a->count > c->options.batch_entries ||
                      b->body.len - SHC_ARRAY_HEAD + a->bytes > bytes_max)) {
        *wake = close_batch(q, b) || *wake;
        b = NULL;
    }
    if (b == NULL)
        b = shc_batch_new(q, a->ack);
    bool held = !a->alone && is_held(lane, b, a);
    buf_reserve(&b->body, a->bytes);
    buf_append(&b->body, a->first.data, a->first.len);
    b->count += a->first.len > 0;
    b->hlc = a->hlc > b->hlc ? a->hlc : b->hlc;
    if (!id16_is_zero(a->log))
        b->log = a->log;
    for (uint32_t i = 0; i < a->count; i++) {
        const struct sh_entry *e = &a->entries[i];
        shc_entry_put(&b->body, e, e->stream != NULL ? strlen(e->stream) : 0);
    }
    b->count += a->count;
    b->live++;
    q->bytes += a->bytes;
    if (a->alone || b->count >= c->options.batch_entries || b->body.len - SHC_ARRAY_HEAD >= bytes_max)
        *wake = close_batch(q, b) || *wake;
    *wake = *wake || (lane->wake_on_entry && !held);
    lane->wake_on_entry = lane->wake_on_entry && held;
    if (q->woken || loop_is_mine(c->loop)) /* a callback's turn ends with a look at the queue */
        *wake = false;
    q->woken = q->woken || *wake;
    return b;
}

static void set_deadline(struct shc_batch *b, int64_t deadline_ns)
{
    if (b->first_deadline_ns == 0 || deadline_ns < b->first_deadline_ns)
        b->first_deadline_ns = deadline_ns;
    b->deadline_ns = deadline_ns;
}

static void add_call_back(struct shc_batch *b, const struct shc_call_back *call)
{
    if (b->call_count == b->call_capacity) {
        b->call_capacity = b->call_capacity > 0 ? b->call_capacity * 2 : 4;
        b->calls = xrealloc(b->calls, b->call_capacity * sizeof *b->calls);
    }
    b->calls[b->call_count++] = *call;
}

/* ---- the two ways to append ---- */

static enum sh_error refuse_late(const struct sh_client *c)
{
    char text[SHC_DETAIL_MAX];
    snprintf(text, sizeof text, "no answer in time: %s", c->away);
    return refuse(SH_TIMEOUT, atomic_load(&c->connected) ? "no answer in time" : text);
}

/* The caller's deadline has passed: true when the batch was answered just now all the same. *id: what became
 * of it so far. */
static bool give_up(struct shc_queue *q, struct shc_batch *b, struct sh_append_id *id)
{
    pthread_mutex_lock(&q->lock);
    bool done = atomic_load(&b->done) != 0;
    if (!done)
        b->live--;
    *id = b->id;
    pthread_mutex_unlock(&q->lock);
    return done;
}

static enum sh_error take_result(const struct shc_batch *b, uint32_t first, uint32_t count,
                                 struct sh_append_result *result)
{
    if (b->error != SH_OK) {
        shc_detail(b->detail);
        shc_keep_append(b->error, &b->id, first, count);
        return b->error;
    }
    if (result != NULL) {
        *result = b->result;
        result->first_lsn += first;
        result->count = count;
    }
    return SH_OK;
}

/* The time for company is over. */
static void send_what_is_there(struct sh_client *c, struct shc_batch *b)
{
    struct shc_queue *q = &c->queue;
    pthread_mutex_lock(&q->lock);
    bool wake = q->lanes[b->ack].open == b && !q->woken;
    q->woken = q->woken || wake;
    b->led = false;
    pthread_mutex_unlock(&q->lock);
    if (wake)
        shc_visit(c, &q->wake);
}

/* A node that says clock_drift refuses the whole frame: others must not share one that may get that. */
static bool is_far_ahead(uint64_t hlc)
{
    return hlc > hlc_of_ms(clock_real_ns() / NS_PER_MS + MS_PER_S);
}

enum sh_error shc_append(struct sh_client *c, const struct sh_entry *entries, uint32_t count, enum sh_ack ack,
                         const struct shc_extra *extra, struct sh_append_result *result, bool *moved)
{
    struct arrival a = {.entries = entries,
                        .count = count,
                        .ack = ack,
                        .waits = true,
                        .now_ns = clock_mono_ns(),
                        .hlc = extra->hlc,
                        .first = extra->first,
                        .log = extra->log,
                        .alone = extra->first.len > 0 || is_far_ahead(extra->hlc)};
    struct sh_append_id id = {.sequence = 0};
    int64_t deadline_ns = extra->deadline_ns;
    bool wake;
    *moved = false;
    if (shc_on_own_thread(c))
        return refuse(SH_BAD_REQUEST, "a callback cannot wait for an append");
    enum sh_error e = shc_append_check(c, entries, count, ack, &a.bytes);
    if (e == SH_OK)
        e = shc_route(&c, entries, count, deadline_ns);
    if (e != SH_OK)
        return e;
    a.bytes += a.first.len;
    struct shc_queue *q = &c->queue;
    pthread_mutex_lock(&q->lock);
    e = wait_for_room(c, a.bytes, deadline_ns);
    if (e != SH_OK) {
        pthread_mutex_unlock(&q->lock);
        return e;
    }
    struct shc_batch *b = add_entries(c, &a, &wake);
    uint32_t first = b->count - count;
    bool leads = b->led && first == 0;
    int64_t company_due_ns = q->lanes[ack].company.due_ns;
    company_due_ns = company_due_ns < deadline_ns ? company_due_ns : deadline_ns;
    set_deadline(b, deadline_ns);
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&q->lock);
    if (wake)
        shc_visit(c, &q->wake);
    if (leads && !shc_wait(&b->done, 0, company_due_ns))
        send_what_is_there(c, b);
    if (shc_wait(&b->done, 0, deadline_ns) || give_up(q, b, &id)) {
        e = take_result(b, first, count, result);
        *moved = b->moved && e != SH_OK;
    } else {
        e = refuse_late(c);
        shc_keep_append(e, &id, first, count);
    }
    shc_batch_unref(q, b);
    return e;
}

enum sh_error sh_append(struct sh_client *c, const struct sh_entry *entries, uint32_t count, enum sh_ack ack,
                        struct sh_append_result *result)
{
    const struct shc_extra none = {.deadline_ns = clock_mono_ns() + shc_patience_ns(c, ack)};
    enum sh_error e;
    bool moved;
    shc_keep_append(SH_OK, NULL, 0, 0);
    do
        e = shc_append(c, entries, count, ack, &none, result, &moved);
    while (moved); /* together with others, who were bound to a log */
    return e;
}

bool shc_wait_for_log(struct sh_client *c, int64_t deadline_ns, struct id16 *log)
{
    if (!shc_wait(&c->most_bytes, 0, deadline_ns))
        return false;
    pthread_mutex_lock(&c->queue.lock);
    *log = c->queue.log;
    pthread_mutex_unlock(&c->queue.lock);
    return true;
}

enum sh_error sh_append_async(struct sh_client *c, const struct sh_entry *entries, uint32_t count,
                              enum sh_ack ack, sh_append_fn *fn, void *arg)
{
    struct shc_call_back call = {.fn = fn, .arg = arg, .count = count};
    struct arrival a = {.entries = entries, .count = count, .ack = ack, .now_ns = clock_mono_ns()};
    bool wake;
    call.deadline_ns = a.now_ns + shc_patience_ns(c, ack);
    if (fn == NULL)
        return refuse(SH_BAD_REQUEST, "a callback is needed");
    enum sh_error e = shc_append_check(c, entries, count, ack, &a.bytes);
    if (e == SH_OK)
        e = shc_route(&c, entries, count, call.deadline_ns);
    if (e != SH_OK)
        return e;
    struct shc_queue *q = &c->queue;
    pthread_mutex_lock(&q->lock);
    e = wait_for_room(c, a.bytes, call.deadline_ns);
    if (e != SH_OK) {
        pthread_mutex_unlock(&q->lock);
        return e;
    }
    struct shc_batch *b = add_entries(c, &a, &wake);
    call.first = b->count - count;
    set_deadline(b, call.deadline_ns);
    add_call_back(b, &call);
    pthread_mutex_unlock(&q->lock);
    if (wake)
        shc_post(c, &q->wake);
    return SH_OK;
}

static enum sh_error flush_one(struct sh_client *c)
{
    struct shc_queue *q = &c->queue;
    int64_t deadline_ns = clock_mono_ns() + shc_patience_ns(c, SH_ACK_ALL);
    struct timespec until = {.tv_sec = deadline_ns / NS_PER_S, .tv_nsec = deadline_ns % NS_PER_S};
    enum sh_error e = SH_OK;
    pthread_mutex_lock(&q->lock);
    uint64_t last = q->orders;
    q->flush_waiters++;
    while (e == SH_OK && q->head != NULL && q->head->order <= last)
        if (pthread_cond_timedwait(&q->answered, &q->lock, &until) != 0 && clock_mono_ns() >= deadline_ns)
            e = SH_TIMEOUT;
    q->flush_waiters--;
    pthread_mutex_unlock(&q->lock);
    return e;
}

enum sh_error sh_flush(struct sh_client *c)
{
    if (shc_on_own_thread(c))
        return refuse(SH_BAD_REQUEST, "a callback cannot wait for answers");
    return shc_groups_flush(c, flush_one);
}
