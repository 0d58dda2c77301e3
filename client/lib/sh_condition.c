/* Appends under a session, and with conditions. The latter are calls of the query link, since it is querysvc
 * that checks them; each is the only one of its producer (struct shc_writer) while it is under way, so that
 * neither the order of sequences nor a refusal concerns another. After a refusal the producer goes on in a
 * new epoch, so that a try that is still somewhere on its way never stands for a later append; after an
 * unknown outcome it is given up, so that the log can be asked about it. Nothing here is fatal. */
#include "sh_internal.h"

#include <stdlib.h>
#include <string.h>

#include "log.h"

enum { CONDITIONS_MAX = 256, TRIES = 3, CURRENT_PARTS = 4 };

static enum sh_error refuse(enum sh_error error, const char *text)
{
    shc_detail(text);
    return error;
}

/* ---------------------------------------------------------------- producers */

static struct shc_writer *take_writer(struct sh_client *c)
{
    pthread_mutex_lock(&c->queue.lock);
    struct shc_writer *w = c->writers;
    if (w != NULL)
        c->writers = w->next;
    pthread_mutex_unlock(&c->queue.lock);
    if (w == NULL) {
        w = xcalloc(1, sizeof *w);
        *w = (struct shc_writer){.id = id16_random(), .epoch = 1};
    }
    return w;
}

static void renew(struct shc_writer *w)
{
    if (w->epoch < UINT32_MAX)
        w->epoch++;
    else
        w->id = id16_random();
    w->sequence = 0;
}

static void put_back(struct sh_client *c, struct shc_writer *w)
{
    pthread_mutex_lock(&c->queue.lock);
    w->next = c->writers;
    c->writers = w;
    pthread_mutex_unlock(&c->queue.lock);
}

void shc_writers_free(struct sh_client *c)
{
    for (struct shc_writer *w = c->writers, *next; w != NULL; w = next) {
        next = w->next;
        free(w);
    }
    c->writers = NULL;
}

/* ---------------------------------------------------------------- the request */

static enum sh_error check_conditions(const struct sh_append_options *o)
{
    if (o->condition_count > CONDITIONS_MAX)
        return refuse(SH_TOO_LARGE, "an append has at most 256 conditions");
    for (size_t i = 0; i < o->condition_count; i++) {
        const struct sh_condition *condition = &o->conditions[i];
        struct slice name = slice_of(condition->name, condition->name_bytes);
        if ((unsigned)condition->kind > SH_IF_KEY)
            return refuse(SH_BAD_REQUEST, "a condition is of a stream or of a key");
        if (condition->kind == SH_IF_KEY && name.len == 0)
            return refuse(SH_BAD_REQUEST, "a key has at least one byte");
        if (condition->kind == SH_IF_KEY && name.len > KEY_MAX)
            return refuse(SH_TOO_LARGE, "a key has at most 4,096 bytes");
        if (condition->kind == SH_IF_STREAM && name.len > STREAM_NAME_MAX)
            return refuse(SH_TOO_LARGE, "a stream's name has at most 255 bytes");
        if (condition->kind == SH_IF_STREAM && !utf8_valid(name))
            return refuse(SH_BAD_REQUEST, "a stream's name is UTF-8");
    }
    return SH_OK;
}

static void pack_conditions(const struct sh_append_options *o, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, o->condition_count);
    for (size_t i = 0; i < o->condition_count; i++) {
        const struct sh_condition *condition = &o->conditions[i];
        msgpack_pack_array(&pk, 4);
        msgpack_pack_uint64(&pk, condition->kind);
        mp_pack_bin(&pk, slice_of(condition->name, condition->name_bytes));
        mp_pack_bin(&pk, slice_of(condition->at.log, sizeof condition->at.log));
        msgpack_pack_uint64(&pk, condition->at.lsn);
    }
}

/* The entries as one array, which lies in b. */
static struct slice pack_entries(const struct sh_entry *entries, uint32_t count,
                                 const struct shc_extra *extra, struct shc_batch *b)
{
    buf_reserve(&b->body, SHC_ARRAY_HEAD);
    b->body.len = SHC_ARRAY_HEAD;
    buf_append(&b->body, extra->first.data, extra->first.len);
    for (uint32_t i = 0; i < count; i++)
        shc_entry_put(&b->body, &entries[i], entries[i].stream != NULL ? strlen(entries[i].stream) : 0);
    b->count = count + (extra->first.len > 0);
    return shc_batch_array(b);
}

/* ---------------------------------------------------------------- the answer */

static bool decode_current(const struct shc_call *call, struct sh_conflict *out)
{
    struct mp m = mp_of(slice_of(call->current, call->current_bytes));
    struct slice log;
    uint32_t parts;
    uint64_t condition;
    if (!mp_array(&m, &parts) || parts < CURRENT_PARTS || !mp_uint(&m, &condition) || !mp_bin(&m, &log) ||
        log.len != sizeof out->current.log || !mp_uint(&m, &out->current.lsn) ||
        !mp_uint(&m, &out->current.hlc))
        return false;
    memcpy(out->current.log, log.data, log.len);
    out->condition = (size_t)condition;
    return true;
}

static enum sh_error take_answer(const struct msg_append_reply *reply, uint32_t first, uint32_t count,
                                 struct sh_append_result *result)
{
    if (reply->count != first + count)
        return refuse(SH_INTERNAL, "the node's answer to an append makes no sense");
    *result = (struct sh_append_result){
        .first_lsn = reply->lsn + first,
        .count = count,
        .ack = (enum sh_ack)reply->ack,
        .hlc = reply->hlc,
        .seen_hlc = reply->hlc > reply->clock ? reply->hlc : reply->clock,
    };
    memcpy(result->log, reply->log.bytes, sizeof result->log);
    return SH_OK;
}

static bool is_unknown(enum sh_error e)
{
    return e == SH_TIMEOUT || e == SH_UNAVAILABLE || e == SH_SEQUENCE_EXPIRED || e == SH_INTERNAL;
}

/* One call under way. */
struct attempt {
    struct sh_client *client;
    struct msg_append_if m;
    struct id16 log;       /* as in struct shc_extra */
    uint32_t first, count; /* entries that no caller gave, and the caller's */
    int64_t deadline_ns;
    struct sh_append_options options;
    struct sh_append_result *result;
    bool moved; /* as of shc_append */
};

/* *again: the log does not know the producer's place any more, and has not taken it. */
static enum sh_error try_once(struct attempt *a, struct shc_writer *w, bool *again)
{
    struct shc_call call = {
        .bound = true, .for_log = a->log, .patience_ns = a->deadline_ns - clock_mono_ns()};
    struct msg_append_reply reply;
    *again = false;
    a->m.producer = w->id;
    a->m.epoch = w->epoch;
    a->m.sequence = w->sequence + 1;
    struct sh_append_id id = {.epoch = w->epoch, .sequence = a->m.sequence};
    memcpy(id.producer, w->id.bytes, sizeof id.producer);
    if (call.patience_ns <= 0)
        return refuse(SH_TIMEOUT, "no answer in time");
    enum sh_error e = shc_ask(a->client, &call, MSG_append_if, &a->m, MSG_append_reply, &reply);
    if (e == SH_OK)
        e = take_answer(&reply, a->first, a->count, a->result);
    bool failed = e == SH_CONFLICT && decode_current(&call, a->options.conflict);
    if (!call.uncertain && (e == SH_SEQUENCE_EXPIRED || (e == SH_CONFLICT && !failed)))
        *again = true;
    a->moved = call.moved;
    if (!a->moved)
        shc_keep_append(e, &id, a->first, a->count);
    if (e == SH_OK)
        w->sequence++;
    else if (a->moved)
        renew(w);
    else if (call.uncertain || (is_unknown(e) && !*again))
        *w = (struct shc_writer){.id = id16_random(), .epoch = 1};
    else
        renew(w);
    shc_call_free(&call);
    return e;
}

static enum sh_error append_if(struct attempt *a)
{
    struct sh_conflict unused, *conflict = a->options.conflict;
    struct shc_writer *w = take_writer(a->client);
    enum sh_error e;
    bool again;
    if (conflict == NULL)
        a->options.conflict = &unused;
    *a->options.conflict = (struct sh_conflict){.condition = SIZE_MAX};
    unsigned tries = 0;
    do
        e = try_once(a, w, &again);
    while (again && ++tries < TRIES);
    put_back(a->client, w);
    return e;
}

static enum sh_error append_with_conditions(struct sh_client *c, const struct sh_entry *entries,
                                            uint32_t count, enum sh_ack ack,
                                            const struct sh_append_options *o, const struct shc_extra *extra,
                                            struct sh_append_result *result, bool *moved)
{
    struct shc_batch b = {.count = 0};
    struct buf conditions = {0};
    size_t bytes;
    *moved = false;
    if (shc_on_own_thread(c))
        return refuse(SH_BAD_REQUEST, "a callback cannot wait for an append");
    enum sh_error e = shc_append_check(c, entries, count, ack, &bytes);
    if (e == SH_OK)
        e = check_conditions(o);
    if (e != SH_OK)
        return e;
    pack_conditions(o, &conditions);
    struct attempt a = {
        .client = c,
        .m = {.ack = ack,
              .timeout_ms = c->options.ack_timeout_ms,
              .hlc = extra->hlc,
              .conditions = buf_slice(&conditions),
              .wait_ms = shc_wait_ms(c),
              .entries = pack_entries(entries, count, extra, &b)},
        .log = extra->log,
        .first = extra->first.len > 0,
        .count = count,
        .deadline_ns = extra->deadline_ns,
        .options = *o,
        .result = result,
    };
    e = append_if(&a);
    *moved = a.moved;
    buf_free(&conditions);
    buf_free(&b.body);
    return e;
}

/* What the session adds to an append; first is the caller's to free. */
static enum sh_error prepare(struct sh_client *c, struct sh_session *session, uint32_t count,
                             struct shc_extra *extra, struct buf *first)
{
    extra->hlc = shc_session_hlc(session);
    first->len = 0;
    if (session == NULL)
        return SH_OK;
    if (count == ENTRIES_MAX)
        return refuse(SH_TOO_LARGE, "an append under a session has at most 65,535 entries");
    if (!shc_wait_for_log(c, extra->deadline_ns, &extra->log))
        return refuse(SH_TIMEOUT, "no answer in time: the node cannot be reached; not appended");
    shc_session_after(session, extra->log, first);
    extra->first = buf_slice(first);
    return SH_OK;
}

static enum sh_error append_prepared(struct sh_client *c, const struct sh_entry *entries, uint32_t count,
                                     enum sh_ack ack, const struct sh_append_options *o,
                                     struct shc_extra *extra, struct sh_append_result *result)
{
    struct buf first = {0};
    enum sh_error e;
    bool moved = false;
    do {
        e = prepare(c, o->session, count, extra, &first);
        if (e == SH_OK && o->condition_count > 0)
            e = append_with_conditions(c, entries, count, ack, o, extra, result, &moved);
        else if (e == SH_OK)
            e = shc_append(c, entries, count, ack, extra, result, &moved);
    } while (e != SH_OK && moved && clock_mono_ns() < extra->deadline_ns);
    if (e == SH_OK && o->session != NULL) {
        shc_session_told(o->session, extra->log);
        sh_session_wrote(o->session, result);
    }
    buf_free(&first);
    return e;
}

enum sh_error sh_append_with(struct sh_client *c, const struct sh_entry *entries, uint32_t count,
                             enum sh_ack ack, const struct sh_append_options *options,
                             struct sh_append_result *result)
{
    const struct sh_append_options o = options != NULL ? *options : (struct sh_append_options){0};
    struct shc_extra extra = {.deadline_ns = clock_mono_ns() + shc_patience_ns(c, ack)};
    struct sh_append_result landed;
    size_t bytes;
    shc_keep_append(SH_OK, NULL, 0, 0);
    if (shc_on_own_thread(c))
        return refuse(SH_BAD_REQUEST, "a callback cannot wait for an append");
    enum sh_error e = shc_append_check(c, entries, count, ack, &bytes);
    if (e == SH_OK)
        e = shc_route(&c, entries, count, extra.deadline_ns);
    if (e == SH_OK)
        e = append_prepared(c, entries, count, ack, &o, &extra, &landed);
    if (e == SH_OK && result != NULL)
        *result = landed;
    return e;
}
