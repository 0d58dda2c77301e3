/* A client of a daemon's link for test programs. */
#include "asker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "log.h"

enum { ANSWER_MS = 30000 };

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct asker *a = arg;
    struct msg_error error;
    (void)number;
    if (type == MSG_error && msg_decode(type, body, &error) == SH_OK)
        printf("%s %" PRIu64 " %.*s\n", sh_error_name((enum sh_error)error.code), error.expected,
               (int)error.text.len, (const char *)error.text.data);
    else if (!a->print(type, body))
        printf("nonsense\n");
    a->answers++;
}

bool asker_open(struct asker *a, const char *endpoint, bool (*print)(uint32_t type, struct slice body))
{
    log_set_level(LOG_ERROR);
    *a = (struct asker){.loop = loop_open(), .print = print};
    struct link_client_options options = {
        .loop = a->loop,
        .endpoint = endpoint,
        .message_bytes = 1 << 20,
        .queue_bytes = 1 << 20,
        .on_answer = on_answer,
        .arg = a,
    };
    return link_client_open(&options, &a->client) == SH_OK;
}

void asker_send(struct asker *a, uint32_t type, const void *message)
{
    struct buf body = {0};
    uint64_t number;
    msg_encode(type, message, &body);
    if (link_client_send(a->client, type, 1, buf_slice(&body), (struct slice){0}, &number) != SH_OK)
        abort();
    buf_free(&body);
    a->sent++;
}

int asker_end(struct asker *a)
{
    int64_t until_ns = clock_mono_ns() + ANSWER_MS * (int64_t)NS_PER_MS;
    while (a->answers < a->sent && clock_mono_ns() < until_ns)
        loop_step(a->loop, 100);
    link_client_close(a->client);
    loop_close(a->loop);
    return a->answers == a->sent ? 0 : 1;
}
