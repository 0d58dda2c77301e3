/* What querysvc tells obssvc: requests by kind, how far the view is behind, clients. */
#include "query_view_parts.h"
#include "telemetry_push.h"

enum { KIND_APPEND, KIND_READ, KIND_GET, KIND_SCAN, KIND_STREAM, KIND_OTHER }; /* as metrics.def has them */

void query_count(uint32_t type)
{
    unsigned kind = type == MSG_append || type == MSG_append_if          ? KIND_APPEND
                    : type == MSG_read                                   ? KIND_READ
                    : type == MSG_kv_get                                 ? KIND_GET
                    : type == MSG_kv_scan                                ? KIND_SCAN
                    : type == MSG_stream_read || type == MSG_stream_list ? KIND_STREAM
                                                                         : KIND_OTHER;
    telemetry_add(TELEMETRY_query_requests, kind, 1);
}

static void gather_lag(const struct view_state *state, const struct query_log *log, msgpack_packer *pk)
{
    const struct view_place *applied = view_place_of(&state->applied, log->id);
    uint64_t lsn = applied != NULL ? applied->lsn : 0;
    char uuid[ID_TEXT];
    const char *const labels[] = {uuid};
    id16_format(log->id, uuid);
    telemetry_gather(pk, TELEMETRY_query_view_lag, labels,
                     log->durable_lsn > lsn ? (int64_t)(log->durable_lsn - lsn) : 0);
}

uint32_t query_figures_gather(void *arg, msgpack_packer *pk)
{
    struct query *q = arg;
    telemetry_gather(pk, TELEMETRY_query_clients, NULL, link_server_stats(q->server).clients);
    if (q->view == NULL)
        return 1;
    const struct view_state *state = query_view_state(q);
    gather_lag(state, &q->own, pk);
    for (size_t i = 0; i < q->copies.count; i++)
        gather_lag(state, &q->copies.logs[i], pk);
    return 2 + (uint32_t)q->copies.count;
}
