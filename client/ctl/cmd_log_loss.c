/* log accept-loss: gives up entries that cannot be read and that nobody has. A person is asked first. */
#include "cmd.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "settings.h"

static bool parse_lsn(const struct ctl *ctl, const char *name, const char *text, uint64_t *lsn)
{
    struct buf problem = {0};
    bool good = setting_parse(SETTING_COUNT, 1, UINT64_MAX, text, lsn, &problem);
    if (!good)
        ctl_usage(ctl, "%s %s", name, buf_cstr(&problem));
    buf_free(&problem);
    return good;
}

/* --log, all zero without it; false (said) when it is no UUID. */
static bool log_of(const struct ctl *ctl, struct id16 *log)
{
    const char *text = ctl_word(ctl, "log", NULL);
    *log = (struct id16){0};
    if (text == NULL || id16_parse(text, log))
        return true;
    ctl_usage(ctl, "--log is no UUID: %s", text);
    return false;
}

/* Without a terminal nobody can be asked. */
static bool is_confirmed(const struct ctl *ctl, uint64_t first, uint64_t last)
{
    char answer[16] = "", entries[CTL_TEXT_MAX];
    if (ctl_has(ctl, "yes"))
        return true;
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
        ctl_usage(ctl, "this gives entries up for good, and there is no terminal to ask: give --yes");
        return false;
    }
    fprintf(stderr,
            "LSN %" PRIu64 " to %" PRIu64 ", up to %s entries, will be given up for good. Sure? [y/N] ",
            first, last, ctl_grouped(last - first + 1, entries));
    if (fgets(answer, sizeof answer, stdin) != NULL && strcspn(answer, "yY") == 0)
        return true;
    fputs("nothing was given up\n", stderr);
    return false;
}

static void print_loss(const struct ctl *ctl, const struct sh_loss *loss)
{
    char a[CTL_TEXT_MAX], when[CTL_TEXT_MAX], uuid[ID_TEXT];
    bool before = loss->accepted_ns != 0;
    struct id16 log;
    if (ctl->format == CTL_JSON) {
        struct json_writer j = {0};
        json_open(&j, NULL, '{');
        json_uuid(&j, "log", loss->log);
        json_uint(&j, "first_lsn", loss->first_lsn);
        json_uint(&j, "last_lsn", loss->last_lsn);
        json_uint(&j, "begin", loss->begin);
        json_uint(&j, "end", loss->end);
        if (before)
            json_int(&j, "accepted_ms", loss->accepted_ns / NS_PER_MS);
        else
            json_null(&j, "accepted_ms");
        json_close(&j, '}');
        json_print(&j);
        return;
    }
    memcpy(log.bytes, loss->log, sizeof log.bytes);
    id16_format(log, uuid);
    printf("given up%s%s: LSN %" PRIu64 " to %" PRIu64 " of log %s, positions %" PRIu64 " to %" PRIu64
           " (%s)\n",
           before ? " already, on " : "", before ? ctl_time(loss->accepted_ns, when) : "", loss->first_lsn,
           loss->last_lsn, uuid, loss->begin, loss->end, ctl_bytes(loss->end - loss->begin, a));
}

static int run_accept_loss(struct ctl *ctl)
{
    struct sh_client *client;
    struct sh_loss loss;
    struct id16 log;
    uint64_t first, last;
    if (!parse_lsn(ctl, "FROM", ctl->values[0], &first) || !parse_lsn(ctl, "TO", ctl->values[1], &last) ||
        !log_of(ctl, &log))
        return CTL_USAGE;
    if (last < first)
        return ctl_usage(ctl, "TO lies before FROM");
    if (!is_confirmed(ctl, first, last))
        return CTL_USAGE;
    int code = ctl_open(ctl, &client);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = sh_accept_loss(client, id16_is_zero(log) ? NULL : log.bytes, first, last, &loss);
    if (e == SH_OK)
        print_loss(ctl, &loss);
    else
        code = ctl_fail_node(ctl, "log accept-loss", e, sh_last_error_detail());
    sh_close(client);
    return e == SH_CONFLICT ? CTL_NO : code;
}

static const struct ctl_option accept_loss_options[] = {
    {"log", 'l', CTL_WORD, "UUID", "which log; without it, the node's own", 0, 0},
    {"yes", 'y', CTL_FLAG, NULL, "don't ask", 0, 0},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_log_accept_loss = {
    .name = "log accept-loss",
    .values = "FROM TO",
    .summary = "Give up entries that are damaged and that nobody has",
    .more =
        "FROM and TO are the first and last LSN of all that is missing in one place, as `log verify`\n"
        "and reads name it. Nothing that can be read is given up: exit 1 then. Reads there stay corrupt,\n"
        "but `log verify` reports an accepted loss, and no damage any more.",
    .options = accept_loss_options,
    .values_least = 2,
    .values_most = 2,
    .run = run_accept_loss,
};
