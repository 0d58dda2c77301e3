/* log trim: deletes old segments, as far as nothing holds them. */
#include "cmd.h"

#include <inttypes.h>

static void print_json(const struct sh_trim_result *r, bool dry_run)
{
    struct json_writer j = {0};
    json_open(&j, NULL, '{');
    json_uint(&j, "first_lsn", r->first_lsn);
    json_uint(&j, "segments", r->segments);
    json_uint(&j, "bytes", r->bytes);
    json_bool(&j, "dry_run", dry_run);
    json_open(&j, "held_by", '[');
    for (size_t i = 0; i < r->held_by_count; i++)
        json_text(&j, NULL, r->held_by[i]);
    json_close(&j, ']');
    json_bool(&j, "drops", r->drops);
    json_close(&j, '}');
    json_print(&j);
}

static void print_text(const struct ctl *ctl, const struct sh_trim_result *r, bool dry_run)
{
    char bytes[CTL_TEXT_MAX];
    struct buf names = {0};
    for (size_t i = 0; i < r->held_by_count; i++) {
        buf_append_str(&names, i > 0 ? ", " : "");
        ctl_safe(&names, slice_str(r->held_by[i]));
    }
    ctl_line(ctl, dry_run ? "would delete" : "deleted", "%" PRIu64 " segment%s, %s", r->segments,
             r->segments == 1 ? "" : "s", ctl_bytes(r->bytes, bytes));
    ctl_line(ctl, "first LSN", "%" PRIu64, r->first_lsn);
    if (r->drops)
        ctl_line(ctl, "closed", "all of the copy %s", dry_run ? "would be dropped" : "is being dropped");
    if (names.len > 0)
        ctl_line(ctl, "held by", "%s", buf_cstr(&names));
    buf_free(&names);
}

static int run_trim(struct ctl *ctl)
{
    struct sh_client *client;
    struct sh_trim_result result;
    uint8_t log[16];
    struct sh_trim_options options = {
        .before_lsn = ctl_number(ctl, "before", 0),
        .dry_run = ctl_has(ctl, "dry-run"),
        .release = ctl_word(ctl, "release", NULL),
    };
    if (!ctl_has(ctl, "before") && options.release == NULL)
        return ctl_usage(ctl, "--before LSN is needed");
    if (options.dry_run && options.release != NULL)
        return ctl_usage(ctl, "--release does something: not with --dry-run");
    int code = ctl_open_log(ctl, &client, log);
    if (code != CTL_DONE)
        return code;
    options.log = ctl_other_log(log);
    enum sh_error e = sh_log_trim(client, &options, &result);
    if (e != SH_OK) {
        code = ctl_fail_node(ctl, "log trim", e, sh_last_error_detail());
    } else {
        if (ctl->format == CTL_JSON)
            print_json(&result, options.dry_run);
        else
            print_text(ctl, &result, options.dry_run);
        code = result.segments == 0 && result.held_by_count > 0 && !result.drops ? CTL_NO : CTL_DONE;
        sh_log_trim_free(&result);
    }
    sh_close(client);
    return code;
}

static const struct ctl_option trim_options[] = {
    {"before", 'b', CTL_NUMBER, "LSN", "the first entry that is to stay", 0, UINT64_MAX},
    {"dry-run", 'n', CTL_FLAG, NULL, "only say what would be deleted", 0, 0},
    {"release", 'r', CTL_WORD, "NAME", "give up all holds of this name first", 0, 0},
    LOG_OPTIONS,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_log_trim = {
    .name = "log trim",
    .values = "",
    .summary = "Delete whole segments below an LSN",
    .more =
        "Whole sealed segments go, the oldest first, when all their entries lie below the LSN and no hold\n"
        "needs them. Says which LSN is the first one left, what was freed, and what holds back more, by\n"
        "name. Exit 1 when nothing could be deleted because of a hold. A hold whose holder will not come\n"
        "back can be released; the holder then has to begin anew. Of a copy whose log is closed (see\n"
        "`replicas`) an LSN behind its end drops all of it.",
    .options = trim_options,
    .of_log = true,
    .run = run_trim,
};
