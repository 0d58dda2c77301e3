/* A holder for tests: sends `hold` messages to walsvc's link, as a member or a reader would.
 *
 * link_hold ENDPOINT KIND NAME LSN TTL_MS [COUNT]   sets a hold; with COUNT so many, NAME-1, NAME-2, ...
 * link_hold ENDPOINT KIND NAME remove               ends it
 *
 * Prints for each "ok FIRST_LSN", or the error's name and what it expects. Exit 1 when there is no answer. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "link.h"
#include "log.h"

enum { ANSWER_MS = 30000 };

struct holder {
    struct loop *loop;
    unsigned answers;
};

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct holder *h = arg;
    struct msg_error error;
    struct msg_hold_reply reply;
    (void)number;
    if (type == MSG_hold_reply && msg_decode(type, body, &reply) == SH_OK)
        printf("ok %" PRIu64 "\n", reply.first_lsn);
    else if (type == MSG_error && msg_decode(type, body, &error) == SH_OK)
        printf("%s %" PRIu64 "\n", sh_error_name((enum sh_error)error.code), error.expected);
    else
        printf("nonsense\n");
    h->answers++;
}

static void send_hold(struct link_client *client, const char *name, char **argv)
{
    struct buf body = {0};
    uint64_t number;
    struct msg_hold m = {.kind = strtoull(argv[2], NULL, 10), .name = slice_str(name)};
    m.remove = strcmp(argv[4], "remove") == 0;
    if (!m.remove) {
        m.lsn = strtoull(argv[4], NULL, 10);
        m.ttl_ms = strtoull(argv[5], NULL, 10);
    }
    msg_encode(MSG_hold, &m, &body);
    if (link_client_send(client, MSG_hold, 1, buf_slice(&body), (struct slice){0}, &number) != SH_OK)
        abort();
    buf_free(&body);
}

int main(int argc, char **argv)
{
    if (argc < 5 || (argc < 6 && strcmp(argv[4], "remove") != 0))
        return 2;
    log_set_level(LOG_ERROR);
    struct holder holder = {.loop = loop_open()};
    struct link_client *client;
    struct link_client_options options = {
        .loop = holder.loop,
        .endpoint = argv[1],
        .message_bytes = 1 << 20,
        .queue_bytes = 1 << 20,
        .on_answer = on_answer,
        .arg = &holder,
    };
    unsigned count = argc > 6 ? (unsigned)strtoul(argv[6], NULL, 10) : 1;
    if (link_client_open(&options, &client) != SH_OK)
        return 2;
    for (unsigned i = 1; i <= count; i++) {
        char name[128];
        if (argc > 6)
            snprintf(name, sizeof name, "%s-%u", argv[3], i);
        else
            snprintf(name, sizeof name, "%s", argv[3]);
        send_hold(client, name, argv);
    }
    int64_t until_ns = clock_mono_ns() + ANSWER_MS * (int64_t)NS_PER_MS;
    while (holder.answers < count && clock_mono_ns() < until_ns)
        loop_step(holder.loop, 100);
    link_client_close(client);
    loop_close(holder.loop);
    return holder.answers == count ? 0 : 1;
}
