/* What a turn of the loop ends with: the core's notices go to the log, its messages to the peers, its state
 * to the disk, and what waited for that is answered. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "member_shell.h"
#include "telemetry_push.h"

#define WRITE_AGAIN_NS NS_PER_S

struct member_time member_now(void)
{
    return (struct member_time){.mono_ns = clock_mono_ns(), .wall_ms = clock_real_ns() / NS_PER_MS};
}

/* ---- what comes out of the core ---- */

static void tell_notices(struct member_service *m)
{
    struct member_notice notice;
    while (member_core_next_notice(m->core, &notice))
        log_line((enum log_level)notice.level, 0, notice.text,
                 LOG_FIELDS(log_text("member", notice.id), log_text("detail", notice.detail)));
}

/* What a start has raised is on disk before others hear of it; a disk that is full doesn't keep us silent. */
static void send_all(struct member_service *m)
{
    int64_t fresh_ns = (int64_t)m->service->config->settings.member_heartbeat_interval;
    struct member_send send;
    while (m->wrote && member_core_next_send(m->core, &send))
        pipeline_out_send(m->out, send.host, send.port, send.message, send.fresh ? fresh_ns : 0);
}

static const char *state_text(enum member_state state)
{
    static const char *const texts[] = {[MEMBER_FOUNDING] = "founding",
                                        [MEMBER_MEMBER] = "",
                                        [MEMBER_HAS_LEFT] = "left the cluster",
                                        [MEMBER_REPLACED] = "replaced",
                                        [MEMBER_REFUSED] = "refused by the cluster"};
    return texts[state];
}

static void count_members(const struct member_service *m, unsigned counts[MEMBER_LEFT + 1])
{
    struct member_view view;
    struct member_time now = member_now();
    memset(counts, 0, (MEMBER_LEFT + 1) * sizeof counts[0]);
    for (size_t i = 0; i < member_core_count(m->core); i++) {
        member_core_view(m->core, now, i, &view);
        counts[view.record->status]++;
    }
}

/* "3 members: 2 up, 1 down" */
static void show_status(struct member_service *m)
{
    unsigned counts[MEMBER_LEFT + 1], members = 0;
    char text[MEMBER_STATUS_TEXT];
    count_members(m, counts);
    for (int status = 0; status < MEMBER_LEFT; status++)
        members += counts[status];
    const char *state = state_text(member_core_self(m->core).state);
    int len = snprintf(text, sizeof text, "%s%s%u member%s:", state, state[0] != 0 ? "; " : "", members,
                       members == 1 ? "" : "s");
    const char *comma = "";
    for (int status = 0; status < MEMBER_LEFT; status++) {
        if (counts[status] == 0)
            continue;
        len += snprintf(text + len, sizeof text - (size_t)len, "%s %u %s", comma, counts[status],
                        member_status_name((enum member_status)status));
        assert((size_t)len < sizeof text);
        comma = ",";
    }
    if (m->full)
        snprintf(text + len, sizeof text - (size_t)len, "; disk full");
    if (strcmp(text, m->status) == 0)
        return;
    snprintf(m->status, sizeof m->status, "%s", text);
    service_status(m->status);
}

/* ---- its state ---- */

static void write_state(struct member_service *m)
{
    uint64_t version = member_core_version(m->core);
    if (version == m->on_disk || !member_file_is_idle(m->file) || m->write_again.slot != 0)
        return;
    struct buf body = {0};
    member_core_save(m->core, &body);
    m->writing = version;
    m->writing_next_event = member_core_events(m->core).next;
    member_file_write(m->file, &body);
}

static void on_write_again(void *arg)
{
    (void)arg; /* the turn's end does it */
}

static void on_written(void *arg, bool full)
{
    struct member_service *m = arg;
    m->wrote = true;
    if (full != m->full)
        telemetry_event(
            full ? LOG_WARN : LOG_INFO, full ? "disk_full" : "disk_has_room",
            full ? "the disk is full: what changes among the members is not kept, and not shown as an event"
                 : "what is known of the members is on disk again",
            LOG_FIELDS(log_text("dir", m->service->config->data_dir)));
    m->full = full;
    if (full) {
        loop_timer_after(m->service->loop, &m->write_again, WRITE_AGAIN_NS);
        return;
    }
    m->on_disk = m->writing;
    m->on_disk_next_event = m->writing_next_event;
}

/* ---- turns ---- */

static void on_turn_end(void *arg)
{
    struct member_service *m = arg;
    struct loop *loop = m->service->loop;
    uint64_t before = m->on_disk;
    write_state(m);
    tell_notices(m);
    send_all(m);
    member_wal_turn(m);
    member_link_answer(m);
    if (before != member_core_version(m->core) || m->status[0] == 0)
        show_status(m);
    int64_t due_ns = member_core_due_ns(m->core);
    if (m->tick.slot == 0 || m->tick.due_ns != due_ns)
        loop_timer_set(loop, &m->tick, due_ns);
}

static void on_tick(void *arg)
{
    struct member_service *m = arg;
    member_core_tick(m->core, member_now());
}

/* Whether we were late is told by the tick: it comes before what has come meanwhile. */
void member_on_message(void *arg, struct slice message)
{
    struct member_service *m = arg;
    struct member_time now = member_now();
    if (now.mono_ns >= member_core_due_ns(m->core))
        member_core_tick(m->core, now);
    member_core_receive(m->core, now, message);
}

void member_turn_open(struct member_service *m)
{
    m->file = member_file_open(m->fs, m->service->config->data_dir, m->service->loop, on_written, m);
    m->tick = (struct loop_timer){.fn = on_tick, .arg = m};
    m->write_again = (struct loop_timer){.fn = on_write_again, .arg = m};
    m->hook = (struct loop_hook){.fn = on_turn_end, .arg = m};
    loop_hook_add(m->service->loop, &m->hook);
    loop_timer_after(m->service->loop, &m->tick, 0);
}

/* What changed last is written before the end. */
void member_turn_close(struct member_service *m)
{
    if (m->file == NULL)
        return;
    loop_timer_cancel(m->service->loop, &m->tick);
    loop_hook_remove(m->service->loop, &m->hook);
    write_state(m);
    member_file_close(m->file); /* with a full disk that sets the timer once more */
    loop_timer_cancel(m->service->loop, &m->write_again);
}
