/* append: values, or lines of standard input, many batches under way at a time.
 *
 * A batch goes out when it is full, or when no more input is ready: a slow writer at the other end of a pipe
 * sees its lines durable at once. */
#include "cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_doc.h"
#include "frame.h"
#include "histogram.h"
#include "log.h"

enum {
    BATCHES_UNDER_WAY = 64,
    BATCHES_WAITING = 4, /* that want more than this node: no more than the client sends at a time, since none
                            may spend its time in the client's queue while those before it use up theirs */
    BATCH_BYTES_MAX = 1 << 20,
    UNKNOWN_BYTES_MAX = 256 << 10, /* of a batch while the node's own limit isn't known */
    ENTRY_EXTRA_BYTES = 10,
    READ_BYTES = 256 << 10,
    IDLE_MS = 5, /* without input for so long, what is there is sent */
    PROGRESS_MS = 100,
};

/* What the callbacks and the sender share, under the lock. */
struct append_run {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    int under_way;
    uint64_t entries; /* acknowledged */
    struct sh_append_result first, last;
    enum sh_ack ack;      /* the lowest level reached */
    uint64_t not_reached; /* entries of `entries` that did not reach `wanted` */
    enum sh_error error;  /* the first one */
    char detail[256];
    struct sh_append_id id;    /* of the request whose outcome is unknown then; sequence 0: it is known */
    struct batch_mark *failed; /* what it befell, when it was a batch; freed at the end */
    struct histogram latency_us;
    struct sh_conflict conflict; /* of --if-last */
    /* The sender's own: */
    struct ctl *ctl;
    struct sh_client *client;
    struct sh_session *session; /* NULL without --session */
    const char *stream;
    struct sh_header *headers; /* of each event */
    uint32_t header_count;
    size_t header_bytes; /* encoded, at most */
    enum sh_ack wanted;
    int batches_most; /* under way */
    uint32_t batch;
    uint64_t bytes, sent;
    struct sh_entry *entry; /* point into the input while a batch gathers */
    uint32_t count;
    size_t batch_bytes;   /* payloads */
    size_t encoded_bytes; /* at most */
    int64_t started_ns;
    struct ctl_progress progress;
};

struct batch_mark {
    struct append_run *run;
    int64_t sent_ns;
    uint64_t first; /* number of its first line or value */
    uint32_t count;
    size_t bytes;
};

/* Keeps the first failure, with the run's lock. Takes the mark, which may be NULL. */
static void keep_failure(struct append_run *run, enum sh_error error, const char *detail,
                         struct batch_mark *mark)
{
    if (run->error != SH_OK) {
        free(mark);
        return;
    }
    run->error = error;
    run->failed = mark;
    sh_last_append(&run->id);
    snprintf(run->detail, sizeof run->detail, "%s", detail);
}

static void fail(struct append_run *run, enum sh_error error, const char *detail, struct batch_mark *mark)
{
    pthread_mutex_lock(&run->lock);
    keep_failure(run, error, detail, mark);
    pthread_mutex_unlock(&run->lock);
}

/* With the run's lock. */
static void note_landed(struct append_run *run, const struct sh_append_result *result, int64_t took_us)
{
    if (run->entries == 0 || result->first_lsn < run->first.first_lsn)
        run->first = *result;
    if (run->entries == 0 || result->first_lsn > run->last.first_lsn)
        run->last = *result;
    run->ack = run->entries == 0 || result->ack < run->ack ? result->ack : run->ack;
    run->entries += result->count;
    run->not_reached += result->ack < run->wanted ? result->count : 0;
    histogram_add(&run->latency_us, (uint64_t)took_us);
}

static void on_appended(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    struct batch_mark *mark = arg;
    struct append_run *run = mark->run;
    int64_t took_us = (clock_mono_ns() - mark->sent_ns) / NS_PER_US;
    pthread_mutex_lock(&run->lock);
    run->under_way--;
    if (error == SH_OK) {
        note_landed(run, result, took_us);
        free(mark);
    } else {
        keep_failure(run, error, sh_last_error_detail(), mark);
    }
    pthread_cond_signal(&run->answered);
    pthread_mutex_unlock(&run->lock);
}

static void show_progress(struct append_run *run)
{
    char entries[CTL_TEXT_MAX], rate[CTL_TEXT_MAX], note[96];
    double seconds = (double)(clock_mono_ns() - run->started_ns) / 1e9;
    snprintf(note, sizeof note, "%s entries durable, %s/s", ctl_grouped(run->entries, entries),
             ctl_rate(seconds > 0 ? (double)run->entries / seconds : 0, rate));
    ctl_progress_show(&run->progress, run->entries, 0, note);
}

/* Waits until at most `most` batches are under way; false when one has failed. */
static bool wait_for_room(struct append_run *run, int most)
{
    pthread_mutex_lock(&run->lock);
    while (run->under_way > most) {
        int64_t due_ns = clock_real_ns() + (int64_t)PROGRESS_MS * NS_PER_MS;
        struct timespec due = {due_ns / NS_PER_S, due_ns % NS_PER_S};
        pthread_cond_timedwait(&run->answered, &run->lock, &due);
        show_progress(run);
    }
    bool good = run->error == SH_OK;
    pthread_mutex_unlock(&run->lock);
    return good;
}

/* Waits for it: under a session one comes after the other. condition: NULL for none. False: it failed. */
static bool append_now(struct append_run *run, const struct sh_entry *entries, uint32_t count,
                       const struct sh_condition *condition)
{
    struct sh_append_result result;
    int64_t sent_ns = clock_mono_ns();
    const struct sh_append_options options = {.session = run->session,
                                              .conditions = condition,
                                              .condition_count = condition != NULL ? 1 : 0,
                                              .conflict = &run->conflict};
    enum sh_error error = sh_append_with(run->client, entries, count, run->wanted, &options, &result);
    pthread_mutex_lock(&run->lock);
    if (error == SH_OK)
        note_landed(run, &result, (clock_mono_ns() - sent_ns) / NS_PER_US);
    else
        keep_failure(run, error, sh_last_error_detail(), NULL);
    pthread_mutex_unlock(&run->lock);
    run->sent += count;
    return error == SH_OK;
}

static void begin_batch(struct append_run *run)
{
    run->count = 0;
    run->batch_bytes = 0;
    run->encoded_bytes = 0;
}

/* The batch that has been gathered. */
static bool send_under_session(struct append_run *run)
{
    bool good = append_now(run, run->entry, run->count, NULL);
    run->bytes += run->batch_bytes;
    begin_batch(run);
    show_progress(run);
    return good;
}

static bool send_batch(struct append_run *run)
{
    if (run->count == 0)
        return true;
    if (run->session != NULL)
        return send_under_session(run);
    if (!wait_for_room(run, run->batches_most - 1))
        return false;
    struct batch_mark *mark = xmalloc(sizeof *mark);
    *mark = (struct batch_mark){run, clock_mono_ns(), run->sent + 1, run->count, run->batch_bytes};
    pthread_mutex_lock(&run->lock);
    run->under_way++;
    pthread_mutex_unlock(&run->lock);
    enum sh_error error =
        sh_append_async(run->client, run->entry, run->count, run->wanted, on_appended, mark);
    if (error != SH_OK) {
        fail(run, error, sh_last_error_detail(), mark);
        pthread_mutex_lock(&run->lock);
        run->under_way--;
        pthread_mutex_unlock(&run->lock);
        return false;
    }
    run->sent += run->count;
    run->bytes += run->batch_bytes;
    begin_batch(run);
    return true;
}

/* Of a batch: an entry that is too large for the node is in one of its own. */
static size_t batch_bytes_max(const struct append_run *run)
{
    size_t most = sh_append_bytes_max(run->client);
    return most == 0 ? UNKNOWN_BYTES_MAX : most < BATCH_BYTES_MAX ? most : BATCH_BYTES_MAX;
}

static struct sh_entry entry_of(const struct append_run *run, const void *payload, size_t bytes)
{
    return (struct sh_entry){.stream = run->stream,
                             .payload = payload,
                             .payload_bytes = bytes,
                             .headers = run->headers,
                             .header_count = run->header_count};
}

static bool add(struct append_run *run, const void *payload, size_t bytes)
{
    size_t encoded = bytes + strlen(run->stream) + ENTRY_EXTRA_BYTES + run->header_bytes;
    if (run->count > 0 && run->encoded_bytes + encoded > batch_bytes_max(run) && !send_batch(run))
        return false;
    run->entry[run->count++] = entry_of(run, payload, bytes);
    run->batch_bytes += bytes;
    run->encoded_bytes += encoded;
    size_t most = sh_append_bytes_max(run->client);
    if (encoded >
        (most > 0 ? most : UNKNOWN_BYTES_MAX)) /* likely to be refused: nothing behind it may land then */
        return send_batch(run) && wait_for_room(run, 0);
    return run->count < run->batch || send_batch(run);
}

/* Adds the whole lines of the input; *used gets their bytes. */
static bool add_lines(struct append_run *run, const struct buf *input, size_t searched, size_t *used)
{
    *used = 0;
    for (;;) {
        size_t from = *used > searched ? *used : searched;
        const uint8_t *newline = memchr(input->data + from, '\n', input->len - from);
        if (newline == NULL)
            return true;
        size_t end = (size_t)(newline - input->data);
        if (!add(run, input->data + *used, end - *used))
            return false;
        *used = end + 1;
    }
}

/* Entries of a batch point into the input, so a batch goes out before the input moves. */
static bool consume(struct append_run *run, struct buf *input, size_t searched)
{
    size_t used;
    if (!add_lines(run, input, searched, &used))
        return false;
    if (used == 0)
        return true;
    if (!send_batch(run))
        return false;
    memmove(input->data, input->data + used, input->len - used);
    input->len -= used;
    return true;
}

static bool input_is_ready(void)
{
    struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&fd, 1, IDLE_MS) != 0;
}

static void fail_input(struct append_run *run, int error)
{
    char detail[128];
    if (error == EISDIR)
        snprintf(detail, sizeof detail, "standard input is a directory");
    else if (error == EBADF)
        snprintf(detail, sizeof detail, "standard input is closed");
    else
        snprintf(detail, sizeof detail, "standard input: %s", strerror(error));
    fail(run, SH_BAD_REQUEST, detail, NULL);
}

static void append_input(struct append_run *run)
{
    struct buf input = {0};
    bool good = true;
    while (good) {
        if (!input_is_ready()) {
            pthread_mutex_lock(&run->lock);
            good = run->error == SH_OK; /* a batch may fail while no input comes */
            show_progress(run);
            pthread_mutex_unlock(&run->lock);
            continue;
        }
        /* Enough for many batches before the rest of a line has to move. */
        size_t before = input.len;
        ssize_t got = read(STDIN_FILENO, buf_reserve(&input, READ_BYTES), READ_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            fail_input(run, errno);
        if (got <= 0) {
            good = got == 0;
            break;
        }
        input.len += (size_t)got;
        good = consume(run, &input, before);
        if (good && input.len > FRAME_BYTES_MAX) { /* no line that large can be appended */
            struct batch_mark *mark = xmalloc(sizeof *mark);
            *mark = (struct batch_mark){run, 0, run->sent + 1, 1, input.len};
            fail(run, SH_TOO_LARGE, "", mark);
            good = false;
        }
    }
    if (good && input.len > 0)
        (void)(add(run, input.data, input.len) && send_batch(run));
    wait_for_room(run, 0);
    buf_free(&input);
}

/* All values as one, on condition of where the stream ends. */
static void append_if(struct append_run *run, const struct sh_version *last)
{
    uint32_t count = (uint32_t)run->ctl->value_count;
    struct sh_entry *entries = xcalloc(count, sizeof *entries);
    const struct sh_condition condition = {
        .kind = SH_IF_STREAM, .name = run->stream, .name_bytes = strlen(run->stream), .at = *last};
    for (uint32_t i = 0; i < count; i++) {
        entries[i] = entry_of(run, run->ctl->values[i], strlen(run->ctl->values[i]));
        run->bytes += entries[i].payload_bytes;
    }
    append_now(run, entries, count, &condition);
    free(entries);
}

static void append_values(struct append_run *run)
{
    bool good = true;
    for (int i = 0; good && i < run->ctl->value_count; i++)
        good = add(run, run->ctl->values[i], strlen(run->ctl->values[i]));
    if (good)
        send_batch(run);
    wait_for_room(run, 0);
}

static void json_position(struct json_writer *j, const char *key, const struct sh_append_result *at,
                          uint64_t lsn, bool known)
{
    if (!known) {
        json_null(j, key);
        return;
    }
    json_open(j, key, '{');
    json_uuid(j, "log", at->log);
    json_uint(j, "lsn", lsn);
    json_close(j, '}');
}

static void print_json(const struct append_run *run, double seconds)
{
    struct json_writer j = {0};
    bool any = run->entries > 0;
    json_open(&j, NULL, '{');
    json_uint(&j, "entries", run->entries);
    json_uint(&j, "bytes", run->bytes);
    json_position(&j, "first", &run->first, run->first.first_lsn, any);
    json_position(&j, "last", &run->last, run->last.first_lsn + run->last.count - 1, any);
    json_text(&j, "ack", ctl_ack_name(any ? run->ack : run->wanted));
    json_text(&j, "wanted", ctl_ack_name(run->wanted));
    json_uint(&j, "not_reached", run->not_reached);
    json_real(&j, "seconds", seconds, 6);
    json_real(&j, "rate", (double)run->entries / seconds, 1);
    json_uint(&j, "p50_us", histogram_quantile(&run->latency_us, 0.5));
    json_uint(&j, "p99_us", histogram_quantile(&run->latency_us, 0.99));
    json_close(&j, '}');
    json_print(&j);
}

static void print_text(const struct append_run *run, double seconds)
{
    char entries[CTL_TEXT_MAX], bytes[CTL_TEXT_MAX], rate[CTL_TEXT_MAX];
    if (run->entries == 0) {
        puts("nothing to append");
        return;
    }
    printf("%s %s durable (%s), %s, LSN %" PRIu64 " to %" PRIu64
           ", in %.3f s: %s/s, p50 %.2f ms, p99 %.2f ms\n",
           ctl_grouped(run->entries, entries), run->entries == 1 ? "entry" : "entries",
           ctl_ack_name(run->ack), ctl_bytes(run->bytes, bytes), run->first.first_lsn,
           run->last.first_lsn + run->last.count - 1, seconds, ctl_rate((double)run->entries / seconds, rate),
           (double)histogram_quantile(&run->latency_us, 0.5) / 1000,
           (double)histogram_quantile(&run->latency_us, 0.99) / 1000);
}

/* Which line it was, and what would have been possible. */
static void describe_too_large(struct append_run *run, bool from_input)
{
    const struct batch_mark *mark = run->failed;
    size_t most = sh_append_bytes_max(run->client),
           extra = strlen(run->stream) + ENTRY_EXTRA_BYTES + run->header_bytes;
    char bytes[CTL_TEXT_MAX], limit[CTL_TEXT_MAX];
    most = (most > 0 ? most : FRAME_BYTES_MAX) - extra;
    if (mark == NULL || mark->count != 1)
        return;
    snprintf(run->detail, sizeof run->detail,
             "%s %" PRIu64 " has %s%s bytes, and the node takes at most %s in one append",
             from_input ? "line" : "value", mark->first, mark->sent_ns == 0 ? "more than " : "",
             ctl_grouped(mark->bytes, bytes), ctl_grouped(most, limit));
}

static int report_failure(struct append_run *run, bool from_input)
{
    char what[160];
    if (run->error == SH_TOO_LARGE)
        describe_too_large(run, from_input);
    if (run->entries == 0)
        snprintf(what, sizeof what, "append: nothing was acknowledged");
    else
        snprintf(what, sizeof what,
                 "append: %" PRIu64 " of %" PRIu64
                 " entries sent were acknowledged, the last is LSN %" PRIu64,
                 run->entries, run->sent, run->last.first_lsn + run->last.count - 1);
    free(run->failed);
    return ctl_fail_append(run->ctl, what, run->error, run->detail, &run->id, &run->conflict);
}

/* No failure, but not what was asked for. */
static int report_not_reached(const struct append_run *run)
{
    char text[256], some[CTL_TEXT_MAX], all[CTL_TEXT_MAX], wait[CTL_TEXT_MAX];
    snprintf(text, sizeof text,
             "%s of %s %s did not reach `%s` within %s: durable on this node, `%s` was reached, and they may "
             "still "
             "reach the others",
             ctl_grouped(run->not_reached, some), ctl_grouped(run->entries, all),
             run->entries == 1 ? "entry" : "entries", ctl_ack_name(run->wanted),
             ctl_duration((int64_t)ctl_ack_timeout_ms(run->ctl) * NS_PER_MS, wait), ctl_ack_name(run->ack));
    ctl_fail_text(run->ctl, "append", SH_NO_QUORUM, text);
    return CTL_NO;
}

static int report(struct append_run *run, bool from_input)
{
    double seconds = (double)(clock_mono_ns() - run->started_ns) / 1e9;
    ctl_progress_end(&run->progress);
    if (run->error != SH_OK)
        return report_failure(run, from_input);
    if (run->ctl->format == CTL_JSON)
        print_json(run, seconds);
    else
        print_text(run, seconds);
    return run->not_reached > 0 ? report_not_reached(run) : CTL_DONE;
}

/* Whether the values are the input, and everything else is as it should be. */
static bool check_values(const struct ctl *ctl, bool *from_input)
{
    *from_input = false;
    for (int i = 0; i < ctl->value_count; i++)
        *from_input = *from_input || strcmp(ctl->values[i], "-") == 0;
    if (!*from_input || ctl->value_count == 1)
        return true;
    ctl_usage(ctl, "append: - stands alone: it means the lines of standard input");
    return false;
}

/* --header NAME=VALUE, each. */
static bool take_headers(struct append_run *run)
{
    enum { HEADER_EXTRA_BYTES = 10, MAP_BYTES = 3 };
    const char *text;
    run->headers = xcalloc(CTL_OPTIONS_MAX, sizeof *run->headers);
    while ((text = ctl_words(run->ctl, "header", (int)run->header_count)) != NULL) {
        const char *equals = strchr(text, '=');
        if (equals == NULL || equals == text || !utf8_valid(slice_of(text, (size_t)(equals - text)))) {
            ctl_usage(run->ctl, "--header must be NAME=VALUE, with a name of UTF-8, not `%s`",
                      doc_show(text).text);
            return false;
        }
        run->headers[run->header_count++] =
            (struct sh_header){text, (size_t)(equals - text), equals + 1, strlen(equals + 1)};
        run->header_bytes += strlen(text) + HEADER_EXTRA_BYTES;
    }
    run->header_bytes += run->header_count > 0 ? MAP_BYTES : 0;
    return true;
}

static int run_append(struct ctl *ctl)
{
    bool from_input;
    const char *stream;
    enum sh_ack wanted;
    struct sh_version at;
    const char *last = ctl_word(ctl, "if-last", NULL);
    if (!check_values(ctl, &from_input) || !ctl_stream(ctl, &stream) || !ctl_ack(ctl, &wanted) ||
        (last != NULL && !ctl_position(ctl, "if-last", last, "none", &at)))
        return CTL_USAGE;
    if (last != NULL && from_input)
        return ctl_usage(ctl, "append: --if-last needs the values as arguments, which are appended as one");
    struct append_run *run = xcalloc(1, sizeof *run);
    run->ctl = ctl;
    run->wanted = wanted;
    run->batches_most = wanted == SH_ACK_LOCAL ? BATCHES_UNDER_WAY : BATCHES_WAITING;
    run->stream = stream != NULL ? stream : "";
    run->batch = (uint32_t)ctl_number(ctl, "batch", 100);
    run->conflict.condition = SIZE_MAX;
    int code = take_headers(run) ? ctl_session_take(ctl, "session", &run->session) : CTL_USAGE;
    if (run->session != NULL && run->batch == ENTRIES_MAX)
        run->batch--; /* one more is the session's */
    if (code == CTL_DONE)
        code = ctl_open(ctl, &run->client);
    if (code == CTL_DONE) {
        pthread_mutex_init(&run->lock, NULL);
        pthread_cond_init(&run->answered, NULL);
        run->entry = xcalloc(run->batch, sizeof *run->entry);
        run->started_ns = clock_mono_ns();
        ctl_progress_start(&run->progress, "append");
        if (last != NULL)
            append_if(run, &at);
        else if (from_input)
            append_input(run);
        else
            append_values(run);
        code = report(run, from_input);
        int kept = ctl_session_keep(ctl, "session", run->session);
        code = code != CTL_DONE ? code : kept;
        sh_close(run->client);
        free(run->entry);
    }
    sh_session_free(run->session);
    free(run->headers);
    free(run);
    return code;
}

static const struct ctl_option append_options[] = {
    {"stream", 's', CTL_WORD, "S", "stream of the events; the empty one without it", 0, 0},
    {"header", 'H', CTL_WORDS, "NAME=VALUE", "a header of each event; as often as there are headers", 0, 0},
    CTL_ACK_OPTIONS,
    {"if-last", 'l', CTL_WORD, "LOG:LSN",
     "only if the stream's last event is that one; none: if it has no events", 0, 0},
    {"session", 0, CTL_WORD, "FILE",
     "after all that was written and seen with FILE, on any node; batch by batch", 0, 0},
    {"batch", 'b', CTL_NUMBER, "N", "entries in a batch, 100 without it", 1, 65536},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_append = {
    .name = "append",
    .values = "VALUE... | -",
    .summary = "Append events and wait until they are durable",
    .more =
        "Each VALUE is one event. With -, each line of standard input is one: without its newline, an\n"
        "empty line too; the last newline may be missing. An event that is just - can only come that\n"
        "way. A retry after a restart of the node never appends anything twice.\n\n"
        "With --ack quorum or all the entries are to be durable on a majority of the group's nodes, or\n"
        "on all of them. What does not get there in time is durable on this node all the same: the\n"
        "rest is appended, and the exit code is 1.\n\n"
        "With --session they come, on every node, after what was written and seen with that file.\n\n"
        "With --if-last all values are appended as one, or none: the exit code is 1 when the stream ends\n"
        "elsewhere, and the error says where (`current` in JSON). Nothing comes between on this node; let\n"
        "one node write a stream that is written so, since others are not asked.",
    .options = append_options,
    .values_least = 1,
    .values_most = -1,
    .run = run_append,
};
