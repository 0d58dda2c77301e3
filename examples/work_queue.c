/* A queue of jobs in shares, and a consumer of one share on whatever node.
 *
 *   work_queue put JOB...
 *   work_queue work SHARE [JOBS]
 *
 * Each job is an event of the stream of its share, "jobs/0" or "jobs/1": two consumers, on two nodes, work
 * side by side. How far a consumer is says a cursor of that name, which the cluster keeps: who starts to work
 * on a share takes its cursor, and goes on where the one before had committed. That one finds out with its
 * next commit. A job is done at least once: one that was done and not committed yet comes again. */
#include "example.h"

enum { SHARES = 2, WAIT_MS = 1000 };

static void share_name(char name[32], unsigned long share)
{
    snprintf(name, 32, "jobs/%lu", share);
}

/* The same job always goes to the same share. */
static unsigned long share_of(const char *job)
{
    unsigned long sum = 0;
    for (; *job != 0; job++)
        sum = sum * 31 + (unsigned char)*job;
    return sum % SHARES;
}

static void put(struct sh_client *client, const char *job)
{
    char stream[32];
    share_name(stream, share_of(job));
    const struct sh_entry entry = {.stream = stream, .payload = job, .payload_bytes = strlen(job)};
    check("put", sh_append(client, &entry, 1, SH_ACK_QUORUM, NULL));
}

static void do_job(const struct sh_event *event)
{
    printf("%.*s\n", (int)event->payload_bytes, (const char *)event->payload);
    fflush(stdout);
}

static struct sh_cursor *take(struct sh_client *client, const char *name)
{
    const struct sh_cursor_options options = {.name = name, .take = true};
    struct sh_cursor *cursor;
    check("take the cursor", sh_cursor_open(client, NULL, &options, &cursor));
    return cursor;
}

/* Until so many are done; 0: until somebody else takes the cursor. */
static void work(struct sh_client *client, const char *name, unsigned long jobs)
{
    struct sh_cursor *cursor = take(client, name);
    const struct sh_stream_options options = {
        .stream = name, .from = sh_cursor_position(cursor), .follow = true};
    struct sh_stream *stream;
    struct sh_event event;
    check("open the stream", sh_stream_open(client, &options, &stream));
    for (unsigned long done = 0; jobs == 0 || done < jobs;) {
        enum sh_error e = sh_stream_next(stream, WAIT_MS, &event);
        if (e == SH_OK) {
            do_job(&event);
            done++;
        } else if (e != SH_TIMEOUT) {
            fail("read", e);
        }
        check("commit", sh_cursor_commit(cursor, NULL, sh_stream_position(stream)));
    }
    sh_stream_close(stream);
    sh_cursor_close(cursor);
}

static int usage(void)
{
    fprintf(stderr, "usage: work_queue put JOB... | work SHARE [JOBS]; shares are 0 to %d\n", SHARES - 1);
    return 2;
}

int main(int argc, char **argv)
{
    bool puts = argc >= 3 && strcmp(argv[1], "put") == 0;
    bool works = (argc == 3 || argc == 4) && strcmp(argv[1], "work") == 0;
    unsigned long share = works ? strtoul(argv[2], NULL, 10) : 0;
    char name[32];
    if ((!puts && !works) || share >= SHARES)
        return usage();
    struct sh_client *client = open_client();
    share_name(name, share);
    for (int i = 2; puts && i < argc; i++)
        put(client, argv[i]);
    if (works)
        work(client, name, argc == 4 ? strtoul(argv[3], NULL, 10) : 0);
    sh_close(client);
    return 0;
}
