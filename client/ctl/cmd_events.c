/* events: what has happened in the cluster, as one node saw it. */
#include "cmd.h"

#include <inttypes.h>
#include <string.h>

enum { FOLLOW_WAIT_MS = 500 };

struct events_run {
    const struct ctl *ctl;
    struct sh_events *events;
    uint64_t left;  /* events to print */
    int id_width;   /* of the longest id so far */
    bool told_loss; /* some were lost, or are counted anew */
};

static void print_json(const struct sh_node_event *e)
{
    struct json_writer j = {0};
    json_open(&j, NULL, '{');
    json_uint(&j, "number", e->number);
    json_int(&j, "time_ms", e->wall_ms);
    json_text(&j, "event", sh_node_event_name(e->kind));
    json_text(&j, "id", e->id);
    json_uint(&j, "generation", e->generation);
    json_uint(&j, "incarnation", e->incarnation);
    json_text(&j, "text", e->text);
    json_uuid(&j, "series", e->series);
    json_close(&j, '}');
    json_print(&j);
}

static const char *style_of(const struct ctl *ctl, enum sh_node_event_kind kind)
{
    switch (kind) {
    case SH_EVENT_UP:
    case SH_EVENT_REACHABLE:
    case SH_EVENT_CLOCK_GOOD:
    case SH_EVENT_FOUNDED:
        return ctl_style(ctl, CTL_GREEN);
    case SH_EVENT_DOWN:
    case SH_EVENT_MUST_REJOIN:
    case SH_EVENT_REFUSED:
    case SH_EVENT_ALARM:
        return ctl_style(ctl, CTL_RED);
    case SH_EVENT_RESTARTED:
    case SH_EVENT_MOVED:
        return "";
    default:
        return ctl_style(ctl, CTL_YELLOW);
    }
}

static void print_text(struct events_run *run, const struct sh_node_event *e)
{
    char time[CTL_TEXT_MAX];
    struct buf id = {0}, text = {0};
    const char *style = style_of(run->ctl, e->kind);
    ctl_safe(&id, slice_str(e->id));
    ctl_safe(&text, slice_str(e->text));
    int width = (int)strlen(buf_cstr(&id));
    run->id_width = width > run->id_width ? width : run->id_width;
    printf("%6" PRIu64 "  %s  %-*s  %s%s%s", e->number, ctl_time(e->wall_ms * NS_PER_MS, time), run->id_width,
           buf_cstr(&id), style, sh_node_event_name(e->kind),
           style[0] != 0 ? ctl_style(run->ctl, CTL_PLAIN) : "");
    if (text.len > 0)
        printf("%*s  %s", 11 - (int)strlen(sh_node_event_name(e->kind)), "", buf_cstr(&text));
    putchar('\n');
    buf_free(&id);
    buf_free(&text);
}

static bool may_come_back(enum sh_error e)
{
    return e == SH_TIMEOUT || e == SH_UNAVAILABLE;
}

/* The next event. When following, what was printed is flushed before waiting, and a reader that went away
 * ends it with SH_NOT_FOUND. */
static enum sh_error next(struct events_run *run, bool follow, struct sh_node_event *event)
{
    enum sh_error e = sh_events_next(run->events, 0, event);
    while (follow && may_come_back(e)) {
        if (fflush(stdout) != 0 || !ctl_is_read())
            return SH_NOT_FOUND;
        e = sh_events_next(run->events, FOLLOW_WAIT_MS, event);
    }
    return e;
}

static enum sh_error print_all(struct events_run *run, bool follow)
{
    struct sh_node_event event;
    while (run->left > 0 && ctl_can_print()) {
        enum sh_error e = next(run, follow, &event);
        if (e == SH_TRIMMED || e == SH_CONFLICT) {
            ctl_fail_text(run->ctl, "events", e, sh_last_error_detail());
            run->told_loss = true;
            continue;
        }
        if (e != SH_OK)
            return e == SH_NOT_FOUND ? SH_OK : e;
        if (run->ctl->format == CTL_JSON) {
            print_json(&event);
            fflush(stdout);
        } else {
            print_text(run, &event);
        }
        run->left--;
    }
    return SH_OK;
}

static int run_events(struct ctl *ctl)
{
    struct sh_client *client;
    struct events_run run = {.ctl = ctl, .left = ctl_number(ctl, "count", UINT64_MAX)};
    uint64_t from = ctl_number(ctl, "from", 1);
    struct sh_events_options options = {.after = from > 0 ? from - 1 : 0, .follow = ctl_has(ctl, "follow")};
    int code = ctl_open(ctl, &client);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = sh_events_open(client, &options, &run.events);
    if (e == SH_OK)
        e = print_all(&run, options.follow);
    if (e != SH_OK)
        code = ctl_fail_member(ctl, NULL, e);
    else if (run.told_loss)
        code = CTL_NO;
    sh_events_close(run.events);
    sh_close(client);
    return code;
}

static const struct ctl_option events_options[] = {
    {"from", 'F', CTL_NUMBER, "N", "number of the first event; the oldest that is kept, without it", 0,
     UINT64_MAX - 1},
    {"follow", 'f', CTL_FLAG, NULL, "wait for more, until Ctrl-C; over restarts of the node too", 0, 0},
    {"count", 'n', CTL_NUMBER, "N", "most events printed", 0, UINT64_MAX},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_events = {
    .name = "events",
    .values = "",
    .summary = "What has happened in the cluster, as the node saw it",
    .more = "The last 1,024 are kept. Each has a number, without gaps; when data/member was lost they are "
            "counted\n"
            "anew. Exit 1 when events that were asked for are not kept any more, or are counted anew: it "
            "says so\n"
            "on standard error, and goes on.",
    .options = events_options,
    .reads = true,
    .run = run_events,
};
