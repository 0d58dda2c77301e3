/* Kills the far end of a link under load, again and again, and checks that nothing is lost, doubled or out of
 * order.
 *
 * link_kills [-s BYTES] [-f IN_FLIGHT] [-k KILLS] [-p PAUSE_MS] SERVER ENDPOINT
 * Starts SERVER ENDPOINT, keeps IN_FLIGHT echo requests outstanding, and kills and restarts the server after
 * some milliseconds of answers. With -p it is stopped for so long and continued instead. Prints one JSON
 * object; exits 1 when an answer is wrong or none comes for 20 s.
 *
 * It has recovered when a request is answered that was sent after the kill: earlier ones may have been
 * answered before it, by what still lies in the mailbox. The program is linked with --wrap=nng_req0_open, to
 * count the pairs of sockets that the client takes. */
#include <assert.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nng/nng.h>
#include <nng/supplemental/util/platform.h>

#include "link.h"
#include "link_conn.h"
#include "log.h"
#include "nng_start.h"

extern char **environ;

enum { HANG_S = 20, CALM_MIN_MS = 5, CALM_SPREAD_MS = 35, CLOSE_S = 10 };

struct run {
    const char *server_path, *endpoint;
    size_t size;
    unsigned in_flight, kills, pause_ms;

    struct loop *loop;
    struct link_client *client;
    struct loop_timer strike, go_on, hang;
    pid_t server;
    unsigned struck;
    bool down;      /* struck, and not recovered yet */
    uint64_t fresh; /* the first number that is sent after the strike */
    unsigned pairs_before, replacements;
    int64_t struck_ns;
    int64_t *recover_ns;
    uint64_t next; /* number that is answered next */
    bool ending;
    struct buf body;
    uint8_t *payload;
};

int __real_nng_req0_open(nng_socket *socket); /* the linker's names */
int __wrap_nng_req0_open(nng_socket *socket);
static unsigned pairs; /* opened so far */

int __wrap_nng_req0_open(nng_socket *socket)
{
    pairs++;
    return __real_nng_req0_open(socket);
}

static _Noreturn void fail(struct run *run, const char *what)
{
    fprintf(stderr, "%s: after %u kills, next %llu, unanswered %zu, connected %d, closing %u\n", what,
            run->struck, (unsigned long long)run->next, link_client_unanswered(run->client),
            link_client_is_connected(run->client), link_conn_closing());
    kill(run->server, SIGKILL);
    _exit(1);
}

static void start_server(struct run *run)
{
    char *argv[] = {(char *)run->server_path, (char *)run->endpoint, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", 1, 0);
    int rv = posix_spawn(&run->server, run->server_path, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (rv != 0)
        fail(run, "cannot start the server");
}

static void kill_server(struct run *run)
{
    kill(run->server, SIGKILL);
    while (waitpid(run->server, NULL, 0) < 0)
        continue;
}

/* The payload begins with the number, so that an answer is known by its bytes too. */
static void send_one(struct run *run, uint64_t expected)
{
    uint64_t number;
    struct msg_echo echo = {.payload = slice_of(run->payload, run->size)};
    memcpy(run->payload, &expected, sizeof expected);
    run->body.len = 0;
    msg_encode(MSG_echo, &echo, &run->body);
    if (link_client_send(run->client, MSG_echo, 0, buf_slice(&run->body), (struct slice){0}, &number) !=
        SH_OK)
        fail(run, "cannot send");
    if (number != expected)
        fail(run, "numbers are not in order");
}

static void on_strike(void *arg)
{
    struct run *run = arg;
    run->down = true;
    run->fresh = run->next + run->in_flight;
    run->pairs_before = pairs;
    run->struck_ns = clock_mono_ns();
    if (run->pause_ms > 0) {
        kill(run->server, SIGSTOP);
        loop_timer_after(run->loop, &run->go_on, run->pause_ms * (int64_t)NS_PER_MS);
        return;
    }
    kill_server(run);
    start_server(run);
}

static void on_go_on(void *arg)
{
    struct run *run = arg;
    run->struck_ns = clock_mono_ns();
    kill(run->server, SIGCONT);
}

static void on_hang(void *arg)
{
    fail(arg, "no answer for too long");
}

static void plan_strike(struct run *run)
{
    int64_t calm_ms = CALM_MIN_MS + (int64_t)(random_u64() % CALM_SPREAD_MS);
    loop_timer_after(run->loop, &run->strike, calm_ms * NS_PER_MS);
}

static void on_recovered(struct run *run)
{
    run->down = false;
    run->replacements += pairs - run->pairs_before;
    run->recover_ns[run->struck++] = clock_mono_ns() - run->struck_ns;
    if (run->struck < run->kills)
        plan_strike(run);
    else
        run->ending = true; /* what is outstanding is waited for */
}

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct run *run = arg;
    struct msg_echo echo;
    uint64_t told;
    if (type != MSG_echo || msg_decode(MSG_echo, body, &echo) != SH_OK || echo.payload.len != run->size)
        fail(run, "not an echo");
    memcpy(&told, echo.payload.data, sizeof told);
    if (number != run->next || told != number)
        fail(run, "answer out of order, or twice");
    run->next++;
    loop_timer_after(run->loop, &run->hang, HANG_S * NS_PER_S);
    if (number == 1)
        plan_strike(run);
    if (run->down && run->go_on.slot == 0 && number >= run->fresh)
        on_recovered(run);
    if (!run->ending)
        send_one(run, number + run->in_flight);
    else if (link_client_unanswered(run->client) == 0)
        loop_stop(run->loop);
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* A pair that was given up may linger before it is closed; what is left then hangs. */
static unsigned closes_that_hang(void)
{
    int64_t end_ns = clock_mono_ns() + CLOSE_S * NS_PER_S;
    while (link_conn_closing() > 0 && clock_mono_ns() < end_ns)
        nng_msleep(10);
    return link_conn_closing();
}

static void report(struct run *run, double seconds)
{
    unsigned n = run->kills;
    qsort(run->recover_ns, n, sizeof *run->recover_ns, compare);
    printf("{\"kills\": %u, \"answers\": %llu, \"rate\": %.0f, \"recover_median_ms\": %.1f, "
           "\"recover_p99_ms\": %.1f, "
           "\"recover_max_ms\": %.1f, \"replacements\": %u, \"closes_that_hang\": %u}\n",
           n, (unsigned long long)run->next - 1, (double)run->next / seconds,
           (double)run->recover_ns[n / 2] / NS_PER_MS,
           (double)run->recover_ns[(size_t)n * 99 / 100] / NS_PER_MS,
           (double)run->recover_ns[n - 1] / NS_PER_MS, run->replacements, closes_that_hang());
}

static void parse(struct run *run, int argc, char **argv)
{
    int opt;
    while ((opt = getopt(argc, argv, "s:f:k:p:")) != -1) {
        unsigned value = opt == '?' ? 0 : (unsigned)strtoul(optarg, NULL, 10);
        if (opt == 's')
            run->size = value;
        else if (opt == 'f')
            run->in_flight = value;
        else if (opt == 'k')
            run->kills = value;
        else if (opt == 'p')
            run->pause_ms = value;
    }
    if (argc - optind != 2 || run->size < sizeof(uint64_t) || run->kills == 0 || run->in_flight == 0) {
        fprintf(stderr,
                "usage: link_kills [-s BYTES] [-f IN_FLIGHT] [-k KILLS] [-p PAUSE_MS] SERVER ENDPOINT\n");
        exit(2);
    }
    run->server_path = argv[optind];
    run->endpoint = argv[optind + 1];
}

int main(int argc, char **argv)
{
    struct run run = {.size = 200, .in_flight = 64, .kills = 10, .next = 1};
    parse(&run, argc, argv);
    log_setup("link_kills", "test");
    run.recover_ns = xcalloc(run.kills, sizeof *run.recover_ns);
    run.payload = xcalloc(run.size, 1);
    nng_start();
    run.loop = loop_open();
    run.strike = (struct loop_timer){.fn = on_strike, .arg = &run};
    run.go_on = (struct loop_timer){.fn = on_go_on, .arg = &run};
    run.hang = (struct loop_timer){.fn = on_hang, .arg = &run};
    struct link_client_options options = {
        .loop = run.loop,
        .endpoint = run.endpoint,
        .message_bytes = 16 << 20,
        .queue_bytes = 64 << 20,
        .on_answer = on_answer,
        .arg = &run,
    };
    enum sh_error e = link_client_open(&options, &run.client);
    assert(e == SH_OK);
    start_server(&run);
    int64_t started_ns = clock_mono_ns();
    for (uint64_t i = 1; i <= run.in_flight; i++)
        send_one(&run, i);
    loop_timer_after(run.loop, &run.hang, HANG_S * NS_PER_S);
    loop_run(run.loop);
    double seconds = (double)(clock_mono_ns() - started_ns) / NS_PER_S;
    loop_timer_cancel(run.loop, &run.hang);
    loop_timer_cancel(run.loop, &run.strike);
    link_client_close(run.client);
    report(&run, seconds);
    kill_server(&run);
    loop_close(run.loop);
    buf_free(&run.body);
    free(run.payload);
    free(run.recover_ns);
    return 0;
}
