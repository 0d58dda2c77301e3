/* Requests that another daemon of the node answers, passed on to it byte for byte, and its answers back. What
 * it has not answered when it is killed is sent to the next one by the link, unless the request does not
 * wait. Nothing here is fatal. */
#include "query.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { FULL_AGAIN_MS = 20, AWAY_AGAIN_MS = 100 };

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct query_forward *f = arg;
    struct pending p;
    bool known = pending_take(&f->pending, number, &p);
    assert(known);
    if (p.fn != NULL)
        p.fn(p.arg, type, body);
    else if (type != MSG_error || !query_group_on_refusal(f->query, p.token, body))
        link_server_answer(f->query->server, p.token, type, body);
}

static void refuse(const struct query_forward *f, struct link_token token, enum sh_error code,
                   const char *before, const char *behind, uint64_t retry_ms)
{
    char text[96];
    snprintf(text, sizeof text, "%s%s%s", before, f->daemon, behind);
    struct msg_error error = {.code = code, .text = slice_str(text), .retry_ms = retry_ms};
    query_refuse_with(f->query, token, &error);
}

static void refuse_impatient(struct query_forward *f)
{
    if (f->pending.used == 0)
        return;
    uint64_t *numbers = xcalloc(f->pending.used, sizeof *numbers);
    size_t count = pending_impatient(&f->pending, numbers);
    for (size_t i = 0; i < count; i++) {
        struct pending p;
        pending_take(&f->pending, numbers[i], &p);
        link_client_forget(f->link, numbers[i]);
        refuse(f, p.token, SH_UNAVAILABLE, "", " was lost before it answered", AWAY_AGAIN_MS);
    }
    free(numbers);
}

static void on_state(void *arg, bool connected)
{
    if (!connected)
        refuse_impatient(arg);
}

static void pass_on(struct query_forward *f, const struct link_request *request, bool impatient)
{
    struct pending p = {.token = request->token, .impatient = impatient, .used = true};
    enum sh_error e = link_client_send(f->link, request->type, request->correlation, request->body,
                                       (struct slice){0}, &p.number);
    if (e != SH_OK) {
        refuse(f, request->token, e, "the queue to ", " is full", FULL_AGAIN_MS);
        return;
    }
    log_for(LOG_DEBUG, request->correlation, request->type == MSG_append ? "append passed on" : "passed on",
            log_text("to", f->daemon), log_uint("type", request->type), log_uint("bytes", request->body.len));
    pending_put(&f->pending, &p);
}

void query_forward_send(struct query_forward *f, const struct link_request *request)
{
    pass_on(f, request, false);
}

void query_forward_now(struct query_forward *f, const struct link_request *request)
{
    if (link_client_is_connected(f->link))
        pass_on(f, request, true);
    else
        refuse(f, request->token, SH_UNAVAILABLE, "", " does not answer", AWAY_AGAIN_MS);
}

enum sh_error query_forward_ask(struct query_forward *f, uint32_t type, uint64_t correlation,
                                struct slice body, query_answer_fn *fn, void *arg)
{
    struct pending p = {.fn = fn, .arg = arg, .used = true};
    enum sh_error e = link_client_send(f->link, type, correlation, body, (struct slice){0}, &p.number);
    if (e == SH_OK)
        pending_put(&f->pending, &p);
    return e;
}

enum sh_error query_forward_open(struct query *q, struct query_forward *f, const char *daemon,
                                 const char *socket, size_t queue_bytes)
{
    *f = (struct query_forward){.query = q, .daemon = daemon};
    snprintf(f->endpoint, sizeof f->endpoint, "ipc://%.200s/%s", q->service->config->run_dir, socket);
    struct link_client_options options = {
        .loop = q->service->loop,
        .endpoint = f->endpoint,
        .message_bytes = link_server_default_limits().message_bytes,
        .queue_bytes = queue_bytes,
        .cluster = q->service->cluster,
        .sender = slice_str(q->service->config->self->id),
        .on_answer = on_answer,
        .on_state = on_state,
        .arg = f,
    };
    return link_client_open(&options, &f->link);
}

void query_forward_close(struct query_forward *f)
{
    if (f->link != NULL)
        link_client_close(f->link);
    f->link = NULL;
    pending_free(&f->pending);
}
