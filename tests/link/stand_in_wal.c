/* Stands in for walsvc where only its word on durable ends matters: answers `watermark` and `logs` with what
 * it was told.
 *
 * stand_in_wal ENDPOINT OWN_LOG [deaf]
 *
 * deaf: `logs` is not known here, and never was.
 *
 * It prints "ready". Then each line of its standard input is a command, and gets a line back:
 *   end LOG POSITION LSN   the log is durable so far; one that it doesn't know is held from now on    "ok"
 *   drop LOG               the log is not held any more                                               "ok"
 *   asked                  how often `logs` was asked                                            a number
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "held_log.h"
#include "link.h"
#include "log.h"

enum { LOGS_MAX = 16, POLLS_MAX = 64, LINE_MAX_BYTES = 256 };

struct durable {
    struct id16 log;
    uint64_t end, lsn;
};

/* A question that waits. */
struct poll {
    struct link_token token;
    uint32_t type;
    uint64_t newer_than;
    struct loop_timer over;
};

static struct loop *loop;
static struct link_server *server;
static struct id16 boot;
static struct durable logs[LOGS_MAX]; /* the own one first */
static size_t log_count = 1;
static uint64_t version = 1, asked;
static bool deaf;
static struct poll polls[POLLS_MAX];

static void answer(struct link_token token, uint32_t type, const void *message)
{
    struct buf body = {0};
    msg_encode(type, message, &body);
    link_server_answer(server, token, type, buf_slice(&body));
    buf_free(&body);
}

static void answer_logs(struct link_token token)
{
    struct buf list = {0};
    msgpack_packer pk;
    mp_packer(&pk, &list);
    msgpack_pack_array(&pk, log_count);
    for (size_t i = 0; i < log_count; i++) {
        const struct held_log held = {
            .log = logs[i].log, .durable = {logs[i].lsn + 1, 0, logs[i].end}, .first_lsn = 1};
        held_log_pack(&pk, &held);
    }
    answer(token, MSG_logs_reply,
           &(struct msg_logs_reply){.boot = boot, .version = version, .logs = buf_slice(&list)});
    buf_free(&list);
}

static void answer_now(struct link_token token, uint32_t type)
{
    const struct msg_watermark_reply reply = {
        .log = logs[0].log, .durable_end = logs[0].end, .durable_lsn = logs[0].lsn, .boot = boot};
    if (type == MSG_logs)
        answer_logs(token);
    else
        answer(token, MSG_watermark_reply, &reply);
}

static void end_poll(struct poll *p)
{
    loop_timer_cancel(loop, &p->over);
    answer_now(p->token, p->type);
    p->type = 0;
}

static void on_over(void *arg)
{
    end_poll(arg);
}

static bool is_news(const struct poll *p)
{
    return (p->type == MSG_logs ? version : logs[0].end) > p->newer_than;
}

static void park(struct link_token token, uint32_t type, uint64_t newer_than, uint64_t wait_ms)
{
    struct poll *p = polls;
    while (p < polls + POLLS_MAX && p->type != 0)
        p++;
    if (p == polls + POLLS_MAX)
        abort();
    *p = (struct poll){
        .token = token, .type = type, .newer_than = newer_than, .over = {.fn = on_over, .arg = p}};
    if (wait_ms == 0 || is_news(p))
        end_poll(p);
    else
        loop_timer_after(loop, &p->over, (int64_t)wait_ms * NS_PER_MS);
}

static void on_request(void *arg, const struct link_request *request)
{
    const struct msg_error unknown = {.code = request->type == MSG_wal_info ? SH_NOT_FOUND : SH_BAD_REQUEST,
                                      .text = slice_str("not known here")};
    struct msg_watermark watermark;
    struct msg_logs ask;
    (void)arg;
    asked += request->type == MSG_logs;
    if (request->type == MSG_watermark && msg_decode(MSG_watermark, request->body, &watermark) == SH_OK)
        park(request->token, MSG_watermark, watermark.newer_than, watermark.wait_ms);
    else if (request->type == MSG_logs && !deaf && msg_decode(MSG_logs, request->body, &ask) == SH_OK)
        park(request->token, MSG_logs, id16_equal(ask.boot, boot) ? ask.newer_than : 0, ask.wait_ms);
    else
        link_server_refuse(server, request->token, &unknown);
}

static struct durable *find(struct id16 log)
{
    for (size_t i = 0; i < log_count; i++)
        if (id16_equal(logs[i].log, log))
            return &logs[i];
    return NULL;
}

/* False: no such command. */
static bool obey(const char *line)
{
    char uuid[64];
    struct id16 log;
    uint64_t end, lsn;
    if (sscanf(line, "drop %63s", uuid) == 1 && id16_parse(uuid, &log) && find(log) != NULL) {
        struct durable *dropped = find(log);
        *dropped = logs[--log_count];
    } else if (sscanf(line, "end %63s %" SCNu64 " %" SCNu64, uuid, &end, &lsn) == 3 &&
               id16_parse(uuid, &log) && (find(log) != NULL || log_count < LOGS_MAX)) {
        struct durable *d = find(log) != NULL ? find(log) : &logs[log_count++];
        *d = (struct durable){.log = log, .end = end, .lsn = lsn};
    } else {
        return false;
    }
    version++;
    for (struct poll *p = polls; p < polls + POLLS_MAX; p++)
        if (p->type != 0 && is_news(p))
            end_poll(p);
    return true;
}

/* A line at a time: whoever tells waits for what comes back. */
static void on_input(void *arg, uint32_t events)
{
    char line[LINE_MAX_BYTES];
    (void)arg, (void)events;
    if (fgets(line, sizeof line, stdin) == NULL) {
        loop_stop(loop);
        return;
    }
    line[strcspn(line, "\n")] = 0;
    if (strcmp(line, "asked") == 0)
        printf("%" PRIu64 "\n", asked);
    else
        puts(obey(line) ? "ok" : "what?");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct loop_fd input = {.fd = STDIN_FILENO, .fn = on_input};
    deaf = argc == 4 && strcmp(argv[3], "deaf") == 0;
    if (argc != (deaf ? 4 : 3) || !id16_parse(argv[2], &logs[0].log))
        return 2;
    log_set_level(LOG_ERROR);
    boot = id16_random();
    loop = loop_open();
    struct link_server_options options = {.loop = loop,
                                          .limits = link_server_default_limits(),
                                          .node = slice_str("stand-in"),
                                          .boot = boot,
                                          .on_request = on_request};
    server = link_server_open(&options);
    if (link_server_listen(server, argv[1]) != SH_OK)
        return 1;
    loop_fd_add(loop, &input, EPOLLIN);
    puts("ready");
    fflush(stdout);
    loop_run(loop);
    return 0;
}
