/* Questions for members' views, passed on. Nothing here is fatal.
 *
 *   querysvc ──link──► here ──REQ──► a member's port + 4 ──► there ──link──► its querysvc
 *
 * Each way one is out at most for each who asks; what is not answered in time is refused. */
#include "repl_view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

enum { ASKED_MAX = 16, QUEUE_BYTES = 256 << 10 };
#define WAIT_NS  (30 * NS_PER_S) /* making a checkpoint writes what isn't on disk yet */
#define MEET_NS  (2 * NS_PER_S)  /* until querysvc is there */
#define IDLE_NS  (60 * NS_PER_S) /* then the link to querysvc is closed */
#define CHECK_NS NS_PER_S

/* A member's question that is at querysvc. */
struct asked {
    bool used;
    uint64_t token, number;
    int64_t due_ns;
};

struct repl_view {
    struct repl_service *service;
    struct repl_fetcher *fetcher; /* one slot */
    struct link_token token;      /* of querysvc's question */
    uint64_t serial;              /* of it, while it is out; 0: none is */
    uint64_t serials;
    int64_t due_ns;
    struct link_client *query; /* NULL: nobody has asked lately */
    int64_t used_ns;
    struct asked asked[ASKED_MAX];
    struct loop_timer timer; /* runs while something is out */
    char endpoint[LINK_ENDPOINT_MAX];
};

static void watch_time(struct repl_view *v)
{
    if (v->timer.slot == 0)
        loop_timer_after(v->service->service->loop, &v->timer, CHECK_NS);
}

/* ---------------------------------------------------------------- to a member */

static void refuse(struct repl_view *v, enum sh_error code, const char *text)
{
    const struct msg_error error = {.code = code, .text = slice_str(text)};
    v->serial = 0;
    link_server_refuse(v->service->link, v->token, &error);
}

static const struct repl_member *find_member(struct repl_service *r, struct slice id)
{
    const struct repl_member *member = repl_core_member(r->core, id);
    return member != NULL && !id16_is_zero(member->log) ? member : NULL;
}

void repl_view_ask(struct repl_service *r, const struct link_request *request)
{
    struct repl_view *v = r->view;
    struct msg_checkpoint m;
    const struct msg_error malformed = {.code = SH_BAD_REQUEST, .text = slice_str("malformed")};
    if (msg_decode(MSG_checkpoint, request->body, &m) != SH_OK) {
        link_server_refuse(r->link, request->token, &malformed);
        return;
    }
    if (v->serial != 0) {
        repl_fetcher_cancel(v->fetcher, 0);
        refuse(v, SH_UNAVAILABLE, "a later question has come");
    }
    v->token = request->token;
    const struct repl_member *member = find_member(r, m.node);
    if (member == NULL || !member->up) {
        refuse(v, SH_UNAVAILABLE, member == NULL ? "no member of the group" : "down");
        return;
    }
    v->serial = ++v->serials;
    v->due_ns = clock_mono_ns() + WAIT_NS;
    m.from = r->identity.log;
    m.node = (struct slice){0};
    watch_time(v);
    repl_fetcher_ask(v->fetcher, 0, v->serial, member->host, (uint16_t)(member->port + REPL_FETCH_PORT),
                     repl_pack(r, MSG_checkpoint, &m));
}

/* The member's word, which querysvc looks at. */
static void on_answer(void *arg, unsigned slot, uint64_t serial, struct repl_fetched *fetched)
{
    struct repl_view *v = arg;
    struct repl_service *r = v->service;
    struct msg_envelope envelope;
    (void)slot;
    if (serial == v->serial) {
        if (msg_open(repl_fetched_message(fetched), &envelope) != SH_OK ||
            !slice_equal(envelope.cluster, r->service->cluster) ||
            (envelope.type != MSG_checkpoint_reply && envelope.type != MSG_error)) {
            refuse(v, SH_UNAVAILABLE, "malformed answer, or of another cluster");
        } else {
            v->serial = 0;
            link_server_answer(r->link, v->token, envelope.type, envelope.body);
        }
    }
    repl_fetched_free(fetched);
}

static void on_failure(void *arg, unsigned slot, uint64_t serial)
{
    struct repl_view *v = arg;
    (void)slot;
    if (serial == v->serial)
        refuse(v, SH_UNAVAILABLE, "cannot be reached");
}

/* ---------------------------------------------------------------- from a member */

static void answer(struct repl_service *r, uint64_t token, uint32_t type, struct slice body)
{
    repl_pack_envelope(r, type);
    repl_server_answer(r->server, token, buf_slice(&r->body), body);
}

static void answer_error(struct repl_service *r, uint64_t token, enum sh_error code, const char *text)
{
    const struct msg_error error = {.code = code, .text = slice_str(text)};
    repl_server_answer(r->server, token, repl_pack(r, MSG_error, &error), (struct slice){0});
}

static struct asked *find_free(struct repl_view *v)
{
    for (size_t i = 0; i < ASKED_MAX; i++)
        if (!v->asked[i].used)
            return &v->asked[i];
    return NULL;
}

static void on_query_answer(void *arg, uint64_t number, uint32_t type, struct slice body);
static void on_query_state(void *arg, bool connected);

static bool open_query(struct repl_view *v)
{
    const struct service *service = v->service->service;
    struct link_client_options options = {
        .loop = service->loop,
        .endpoint = v->endpoint,
        .message_bytes = link_server_default_limits().message_bytes,
        .queue_bytes = QUEUE_BYTES,
        .cluster = service->cluster,
        .sender = slice_str(service->config->self->id),
        .on_answer = on_query_answer,
        .on_state = on_query_state,
        .arg = v,
    };
    return v->query != NULL || link_client_open(&options, &v->query) == SH_OK;
}

void repl_view_asked(struct repl_service *r, uint64_t token, struct slice sender,
                     const struct msg_checkpoint *ask)
{
    struct repl_view *v = r->view;
    struct asked *asked = find_free(v);
    struct msg_checkpoint m = *ask;
    struct buf body = {0};
    if (!repl_core_may_ask(r->core, clock_mono_ns(), token, sender, ask->from))
        return;
    m.node = sender;
    msg_encode(MSG_checkpoint, &m, &body);
    v->used_ns = clock_mono_ns();
    if (asked == NULL || !open_query(v) ||
        link_client_send(v->query, MSG_checkpoint, 0, buf_slice(&body), (struct slice){0}, &asked->number) !=
            SH_OK) {
        answer_error(r, token, SH_UNAVAILABLE, "too many questions");
    } else {
        asked->used = true;
        asked->token = token;
        asked->due_ns = v->used_ns + (link_client_is_connected(v->query) ? WAIT_NS : MEET_NS);
    }
    watch_time(v);
    buf_free(&body);
}

static void on_query_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct repl_view *v = arg;
    for (size_t i = 0; i < ASKED_MAX; i++) {
        if (!v->asked[i].used || v->asked[i].number != number)
            continue;
        v->asked[i].used = false;
        answer(v->service, v->asked[i].token, type, body);
    }
}

/* Whoever asks begins anew with the next one: what was asked of this one is gone. */
static void on_query_state(void *arg, bool connected)
{
    struct repl_view *v = arg;
    int64_t due_ns = clock_mono_ns() + WAIT_NS;
    for (size_t i = 0; i < ASKED_MAX; i++) {
        struct asked *asked = &v->asked[i];
        if (asked->used && connected) {
            asked->due_ns = due_ns;
        } else if (asked->used) {
            asked->used = false;
            link_client_forget(v->query, asked->number);
            answer_error(v->service, asked->token, SH_UNAVAILABLE, "querysvc was lost");
        }
    }
}

/* ---------------------------------------------------------------- time */

static void on_timer(void *arg)
{
    struct repl_view *v = arg;
    int64_t now_ns = clock_mono_ns();
    bool waits = false;
    if (v->serial != 0 && now_ns >= v->due_ns) {
        repl_fetcher_cancel(v->fetcher, 0);
        refuse(v, SH_UNAVAILABLE, "does not answer in time");
    }
    for (size_t i = 0; i < ASKED_MAX; i++) {
        struct asked *asked = &v->asked[i];
        if (asked->used && now_ns >= asked->due_ns) {
            asked->used = false;
            link_client_forget(v->query, asked->number);
            answer_error(v->service, asked->token, SH_UNAVAILABLE, "querysvc does not answer in time");
        }
        waits = waits || asked->used;
    }
    if (v->query != NULL && !waits && now_ns - v->used_ns > IDLE_NS) {
        link_client_close(v->query);
        v->query = NULL;
    }
    if (v->query != NULL || v->serial != 0)
        watch_time(v);
}

/* ---------------------------------------------------------------- life */

void repl_view_open(struct repl_service *r)
{
    struct repl_view *v = xcalloc(1, sizeof *v);
    const struct repl_fetcher_options fetcher = {
        .loop = r->service->loop,
        .slots = 1,
        .message_bytes = REPL_MESSAGE_MAX,
        .on_answer = on_answer,
        .on_failure = on_failure,
        .arg = v,
    };
    v->service = r;
    v->timer = (struct loop_timer){.fn = on_timer, .arg = v};
    v->fetcher = repl_fetcher_open(&fetcher);
    r->view = v;
    snprintf(v->endpoint, sizeof v->endpoint, "ipc://%.200s/query", r->service->config->run_dir);
}

void repl_view_close(struct repl_service *r)
{
    struct repl_view *v = r->view;
    if (v == NULL)
        return;
    loop_timer_cancel(r->service->loop, &v->timer);
    repl_fetcher_close(v->fetcher);
    if (v->query != NULL)
        link_client_close(v->query);
    free(v);
    r->view = NULL;
}
