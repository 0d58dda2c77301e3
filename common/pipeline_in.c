/* The receiving end of pipelines. Nothing that comes in is fatal. */
#include "pipeline.h"

#include <stdio.h>
#include <stdlib.h>

#include "pull_socket.h"

enum { URL_MAX = 300 };

struct pipeline_in {
    struct pull_socket *pull;
    struct mailbox mailbox;
    void (*on_message)(void *arg, struct slice message);
    void *arg;
};

struct arrival {
    struct mail mail;
    nng_msg *message;
    bool held_back;
};

/* On nng's threads. */
static struct mail *wrap(void *arg, nng_msg *message, bool held_back)
{
    struct arrival *arrival = xcalloc(1, sizeof *arrival);
    (void)arg;
    arrival->message = message;
    arrival->held_back = held_back;
    return &arrival->mail;
}

static void take(struct pipeline_in *in, struct arrival *arrival)
{
    size_t len = nng_msg_len(arrival->message);
    if (in->on_message != NULL)
        in->on_message(in->arg, slice_of(nng_msg_body(arrival->message), len));
    pull_socket_taken(in->pull, len);
    if (arrival->held_back && in->on_message != NULL)
        pull_socket_resume(in->pull);
    nng_msg_free(arrival->message);
    free(arrival);
}

static void on_mail(void *arg, struct mail *first)
{
    for (struct mail *mail = first, *next; mail != NULL; mail = next) {
        next = mail->next;
        take(arg, (struct arrival *)mail);
    }
}

enum sh_error pipeline_in_open(const struct pipeline_in_options *options, struct pipeline_in **out)
{
    char url[URL_MAX];
    struct pipeline_in *in = xcalloc(1, sizeof *in);
    snprintf(url, sizeof url, "tcp://%s:%u", options->host, options->port);
    in->on_message = options->on_message;
    in->arg = options->arg;
    mailbox_open(&in->mailbox, options->loop, on_mail, in);
    const struct pull_options pull = {
        .url = url,
        .message_bytes = options->message_bytes,
        .waiting_bytes = options->waiting_bytes,
        .mailbox = &in->mailbox,
        .wrap = wrap,
    };
    enum sh_error e = pull_socket_open(&pull, &in->pull);
    if (e == SH_OK) {
        pull_socket_start(in->pull);
        *out = in;
    } else {
        mailbox_close(&in->mailbox);
        free(in);
    }
    return e;
}

void pipeline_in_close(struct pipeline_in *in)
{
    in->on_message = NULL; /* what is left is dropped */
    pull_socket_close(in->pull);
    mailbox_close(&in->mailbox);
    pull_socket_free(in->pull);
    free(in);
}
