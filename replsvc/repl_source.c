/* Reading the frames that others are sent. Nothing here is fatal. */
#include <limits.h>
#include <stdio.h>

#include "log.h"
#include "log_reader_copy.h"
#include "repl_shell.h"

enum { FETCH_REPLY_BYTES_KEY = 6 };

static void close_source(struct repl_open_source *source)
{
    if (source->reader != NULL)
        log_reader_close(source->reader);
    *source = (struct repl_open_source){0};
}

/* One that stands at the place, else one that is not in use, else the one that was used longest ago. */
struct repl_open_source *repl_source_of(struct repl_service *r, struct id16 log, uint64_t position)
{
    struct repl_open_source *oldest = &r->sources[0];
    for (size_t i = 0; i < REPL_SOURCES; i++) {
        struct repl_open_source *source = &r->sources[i];
        if (source->reader != NULL && id16_equal(source->log, log) && source->position == position)
            return source;
        if (source->used_ns < oldest->used_ns)
            oldest = source;
    }
    char dir[PATH_MAX], uuid[ID_TEXT];
    close_source(oldest);
    id16_format(log, uuid);
    snprintf(dir, sizeof dir, "%s/log/%s", r->service->config->data_dir, uuid);
    oldest->reader = log_reader_open(vfs_posix(), dir, log);
    oldest->log = log;
    return oldest;
}

static void refuse(struct repl_service *r, uint64_t token, enum sh_error error, const char *text)
{
    const struct msg_error message = {.code = error, .text = slice_str(text)};
    repl_server_answer(r->server, token, repl_pack(r, MSG_error, &message), (struct slice){0});
}

static void answer(struct repl_service *r, uint64_t token, const struct repl_serve *serve,
                   const struct log_copy *copy)
{
    struct buf given_up = {0};
    repl_core_given_up(r->core, serve->log, copy->state, &given_up);
    const struct msg_fetch_reply reply = {
        .log = serve->log,
        .state = copy->state,
        .position = copy->state == LOG_COPY_TRIMMED ? copy->at.position : serve->from.position,
        .lsn = copy->state == LOG_COPY_TRIMMED ? copy->at.next_lsn - 1 : 0,
        .checksum = copy->state == LOG_COPY_FORKED ? copy->at.checksum : 0,
        .bytes = buf_slice(&r->frames),
        .durable_end = serve->durable.position,
        .durable_lsn = serve->durable.next_lsn - 1,
        .segment = copy->segment,
        .given_up = buf_slice(&given_up),
    };
    repl_pack_envelope(r, MSG_fetch_reply);
    msg_encode_head(MSG_fetch_reply, &reply, FETCH_REPLY_BYTES_KEY, &r->body);
    repl_server_answer(r->server, token, buf_slice(&r->body), reply.bytes);
    buf_free(&given_up);
}

/* Frames that follow a place, or its being the end, are only found when the frame before it is the one that
 * the asking node has. */
static bool proves(const struct repl_serve *serve, enum log_copy_state state)
{
    return !serve->anew && !serve->repair && (state == LOG_COPY_FRAMES || state == LOG_COPY_END);
}

void repl_source_serve(struct repl_service *r, const struct repl_action *action)
{
    const struct repl_serve *serve = &action->serve;
    if (action->kind == REPL_REFUSE) {
        refuse(r, action->token, action->error, action->text);
        return;
    }
    struct log_copy copy = {
        .from = serve->from,
        .anew = serve->anew,
        .repair = serve->repair,
        .durable_end = serve->durable.position,
        .max_bytes = serve->most_bytes,
        .max_entries = serve->most_entries,
    };
    struct repl_open_source *source = repl_source_of(r, serve->log, serve->from.position);
    r->frames.len = 0;
    enum sh_error error = log_reader_copy(source->reader, &copy, &r->frames);
    source->used_ns = loop_now_ns(r->service->loop);
    if (error == SH_OK && proves(serve, copy.state))
        repl_core_proved(r->core, serve->log, serve->by, &serve->from);
    source->position = copy.state == LOG_COPY_FRAMES ? copy.at.position : serve->from.position;
    if (error != SH_OK) {
        refuse(r, action->token, error, sh_error_text(error));
        return;
    }
    answer(r, action->token, serve, &copy);
    if (!serve->anew && !serve->repair) /* with these the place isn't compared */
        repl_core_served(r->core, clock_mono_ns(), slice_str(action->id), serve->log, copy.state);
}

void repl_source_forget(struct repl_service *r, struct id16 log)
{
    for (size_t i = 0; i < REPL_SOURCES; i++)
        if (r->sources[i].reader != NULL && id16_equal(r->sources[i].log, log))
            close_source(&r->sources[i]);
}

void repl_source_tidy(struct repl_service *r)
{
    for (size_t i = 0; i < REPL_SOURCES; i++)
        if (r->sources[i].reader != NULL)
            log_reader_let_go(r->sources[i].reader);
}

void repl_source_close(struct repl_service *r)
{
    for (size_t i = 0; i < REPL_SOURCES; i++)
        close_source(&r->sources[i]);
}
