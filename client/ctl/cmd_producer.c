/* producer status: whether an append landed that ended without an answer. */
#include "cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *explain(enum sh_landed landed)
{
    switch (landed) {
    case SH_LANDED:
        break;
    case SH_NOT_LANDED:
        return "it has not landed in this log; as long as its client tries, it may";
    case SH_LANDED_SOMEWHERE:
        return "it has landed in this log; where is not remembered any more";
    case SH_LANDED_FORGOTTEN:
        return "nothing is remembered of that producer in this log";
    case SH_LANDED_FENCED:
        return "a higher epoch of that producer has landed in this log: this one does not any more, and "
               "whether it "
               "had is forgotten";
    }
    return "";
}

static void print_text(const struct ctl *ctl, const struct sh_producer_status *status)
{
    struct id16 log;
    char uuid[ID_TEXT];
    memcpy(log.bytes, status->log, sizeof log.bytes);
    id16_format(log, uuid);
    ctl_line(ctl, "log", "%s", uuid);
    ctl_line(ctl, "state", "%s", sh_landed_name(status->landed));
    if (status->landed != SH_LANDED) {
        puts(explain(status->landed));
        return;
    }
    ctl_line(ctl, "lsn", "%" PRIu64, status->first_lsn);
    ctl_line(ctl, "count", "%" PRIu32, status->count);
}

static void print_json(const struct sh_producer_status *status)
{
    struct json_writer j = {0};
    json_open(&j, NULL, '{');
    json_text(&j, "state", sh_landed_name(status->landed));
    json_uuid(&j, "log", status->log);
    if (status->landed == SH_LANDED) {
        json_uint(&j, "lsn", status->first_lsn);
        json_uint(&j, "count", status->count);
    }
    json_close(&j, '}');
    json_print(&j);
}

/* False: not one of 1 to 2^64 - 1. */
static bool parse_sequence(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && text[0] >= '0' && text[0] <= '9' && *end == 0 && *out > 0;
}

static int run_status(struct ctl *ctl)
{
    struct sh_client *client;
    struct sh_producer_status status;
    struct sh_append_id id = {.epoch = (uint32_t)ctl_number(ctl, "epoch", 1)};
    struct id16 producer;
    if (!id16_parse(ctl->values[0], &producer))
        return ctl_usage(ctl, "producer status: not a producer's uuid: %s", ctl->values[0]);
    if (!parse_sequence(ctl->values[1], &id.sequence))
        return ctl_usage(ctl, "producer status: not a sequence: %s", ctl->values[1]);
    memcpy(id.producer, producer.bytes, sizeof id.producer);
    int code = ctl_open(ctl, &client);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = sh_producer_status(client, &id, &status);
    if (e != SH_OK)
        code = ctl_fail_node(ctl, "producer status", e, sh_last_error_detail());
    else if (ctl->format == CTL_JSON)
        print_json(&status);
    else
        print_text(ctl, &status);
    if (e == SH_OK && status.landed != SH_LANDED && status.landed != SH_LANDED_SOMEWHERE)
        code = CTL_NO;
    sh_close(client);
    return code;
}

static const struct ctl_option options[] = {
    {"epoch", 'E', CTL_NUMBER, "N", "epoch of the producer, 1 without it", 0, UINT32_MAX},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_producer_status = {
    .name = "producer status",
    .values = "PRODUCER SEQUENCE",
    .summary = "Whether an append landed that ended without an answer",
    .more =
        "A command that appends, and ends without knowing what became of it, names its producer and the\n"
        "sequence. The node is asked that it was sent to; the answer is where the request's entries begin\n"
        "in its log, and how many it had. The exit code is 1 unless it has landed. The log remembers the\n"
        "last 256 requests of the last 1,024 producers.",
    .options = options,
    .values_least = 2,
    .values_most = 2,
    .run = run_status,
};
