/* What membersvc tells obssvc of the members, beside what is counted where it happens. */
#include "member_shell.h"
#include "telemetry_push.h"

static uint32_t gather_member(const struct member_view *view, msgpack_packer *pk)
{
    const char *const labels[] = {view->record->id};
    if (view->record->status == MEMBER_LEFT)
        return 0;
    telemetry_gather(pk, TELEMETRY_member_up, labels, view->record->status == MEMBER_UP);
    if (view->self || view->heard_ns < 0)
        return 1;
    telemetry_gather(pk, TELEMETRY_member_clock, labels, view->ahead_ms * NS_PER_MS);
    return 2;
}

uint32_t member_figures_gather(void *arg, msgpack_packer *pk)
{
    const struct member_service *m = arg;
    const struct member_time now = member_now();
    int64_t nodes[MEMBER_LEFT + 1] = {0};
    uint32_t series = MEMBER_LEFT + 1;
    struct member_view view;
    for (size_t i = 0; i < member_core_count(m->core); i++) {
        member_core_view(m->core, now, i, &view);
        nodes[view.record->status]++;
        series += gather_member(&view, pk);
    }
    for (int status = 0; status <= MEMBER_LEFT; status++) {
        const char *const labels[] = {member_status_name((enum member_status)status)};
        telemetry_gather(pk, TELEMETRY_member_nodes, labels, nodes[status]);
    }
    return series;
}
