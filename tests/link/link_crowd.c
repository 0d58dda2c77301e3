/* Many clients of one far end, each with one echo request outstanding.
 *
 * link_crowd [-c CLIENTS] [-s BYTES] [-n ANSWERS] ENDPOINT
 * Waits until all are connected and each has got so many answers, and prints one JSON object; exits 1 when
 * that takes more than 30 s and 60 s. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "link.h"
#include "log.h"
#include "nng_start.h"

enum { CONNECT_S = 30, ANSWERS_S = 60 };

struct crowd;

struct member {
    struct crowd *crowd;
    struct link_client *client;
    uint64_t answers;
    int64_t asked_ns;
};

struct crowd {
    struct loop *loop;
    struct loop_timer end;
    struct member *members;
    unsigned count, connected;
    int64_t started_ns;
    struct buf body;
    int64_t *waits_ns; /* of all answers */
    uint64_t each, answers;
};

static void ask(struct member *m)
{
    uint64_t number;
    m->asked_ns = clock_mono_ns();
    enum sh_error e =
        link_client_send(m->client, MSG_echo, 0, buf_slice(&m->crowd->body), (struct slice){0}, &number);
    assert(e == SH_OK);
}

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct member *m = arg;
    struct crowd *crowd = m->crowd;
    (void)number;
    assert(type == MSG_echo && body.len == crowd->body.len);
    crowd->waits_ns[crowd->answers++] = clock_mono_ns() - m->asked_ns;
    if (++m->answers < crowd->each)
        ask(m);
    else if (crowd->answers == crowd->count * crowd->each)
        loop_stop(crowd->loop);
}

static void on_end(void *arg)
{
    struct crowd *crowd = arg;
    loop_stop(crowd->loop);
}

static void on_state(void *arg, bool connected)
{
    struct member *m = arg;
    struct crowd *crowd = m->crowd;
    crowd->connected += connected ? 1 : -1;
    if (crowd->connected < crowd->count || crowd->started_ns != 0)
        return;
    crowd->started_ns = clock_mono_ns();
    loop_timer_after(crowd->loop, &crowd->end, ANSWERS_S * NS_PER_S);
    for (unsigned i = 0; i < crowd->count; i++)
        ask(&crowd->members[i]);
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static bool report(struct crowd *crowd)
{
    uint64_t n = crowd->answers;
    if (n < crowd->count * crowd->each) {
        fprintf(stderr, "%u of %u connected, %llu answers of %llu for each\n", crowd->connected, crowd->count,
                (unsigned long long)n, (unsigned long long)crowd->each);
        return false;
    }
    qsort(crowd->waits_ns, n, sizeof *crowd->waits_ns, compare);
    printf("{\"clients\": %u, \"answers\": %llu, \"rate\": %.0f, \"p50_ms\": %.2f, \"p99_ms\": %.2f, "
           "\"max_ms\": %.2f}\n",
           crowd->count, (unsigned long long)n,
           (double)n * NS_PER_S / (double)(clock_mono_ns() - crowd->started_ns),
           (double)crowd->waits_ns[n / 2] / NS_PER_MS, (double)crowd->waits_ns[n * 99 / 100] / NS_PER_MS,
           (double)crowd->waits_ns[n - 1] / NS_PER_MS);
    return true;
}

static void open_member(struct crowd *crowd, struct member *m, const char *endpoint)
{
    m->crowd = crowd;
    struct link_client_options options = {
        .loop = crowd->loop,
        .endpoint = endpoint,
        .message_bytes = 4 << 20,
        .queue_bytes = 8 << 20,
        .on_answer = on_answer,
        .on_state = on_state,
        .arg = m,
    };
    enum sh_error e = link_client_open(&options, &m->client);
    assert(e == SH_OK);
}

int main(int argc, char **argv)
{
    struct crowd crowd = {.count = 200, .each = 100};
    size_t size = 1000;
    int opt;
    while ((opt = getopt(argc, argv, "c:s:n:")) != -1) {
        unsigned long value = opt == '?' ? 0 : strtoul(optarg, NULL, 10);
        if (opt == 'c')
            crowd.count = (unsigned)value;
        else if (opt == 's')
            size = value;
        else if (opt == 'n')
            crowd.each = value;
        else
            return 2;
    }
    if (argc - optind != 1 || crowd.count == 0 || crowd.each == 0)
        return 2;
    log_setup("link_crowd", "test");
    nng_start();
    crowd.loop = loop_open();
    crowd.end = (struct loop_timer){.fn = on_end, .arg = &crowd};
    crowd.members = xcalloc(crowd.count, sizeof *crowd.members);
    crowd.waits_ns = xcalloc(crowd.count * crowd.each, sizeof *crowd.waits_ns);
    uint8_t *payload = xcalloc(size, 1);
    msg_encode(MSG_echo, &(struct msg_echo){.payload = slice_of(payload, size)}, &crowd.body);
    for (unsigned i = 0; i < crowd.count; i++)
        open_member(&crowd, &crowd.members[i], argv[optind]);
    loop_timer_after(crowd.loop, &crowd.end, CONNECT_S * NS_PER_S);
    loop_run(crowd.loop);
    bool good = report(&crowd);
    fflush(stdout);
    _exit(good ? 0 : 1); /* hundreds of sockets need not be closed one by one */
}
