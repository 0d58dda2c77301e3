/* How far the view is with each log. Nothing here is fatal. */
#include "query.h"
#include "view.h"

static bool is_begun(const struct view_state *state, struct id16 log)
{
    return view_place_of(&state->applied, log) != NULL;
}

static void pack_progress(struct query *q, msgpack_packer *pk, struct id16 log)
{
    const struct view_state *state = query_view_state(q);
    const struct view_place *applied = view_place_of(&state->applied, log),
                            *flushed = view_place_of(&state->flushed, log);
    const struct query_log *held = query_find_log(q, log);
    msgpack_pack_array(pk, 4);
    mp_pack_bin(pk, slice_of(log.bytes, sizeof log.bytes));
    msgpack_pack_uint64(pk, applied != NULL ? applied->lsn : 0);
    msgpack_pack_uint64(pk, flushed != NULL ? flushed->lsn : 0);
    msgpack_pack_uint64(pk, held != NULL ? held->durable_lsn : 0);
}

/* Also logs that it holds, and of which nothing is applied yet. */
static void answer_view_info(struct query *q, const struct query_read *r)
{
    const struct view_state *state = query_view_state(q);
    struct buf logs = {0};
    msgpack_packer pk;
    mp_packer(&pk, &logs);
    size_t not_begun = is_begun(state, q->own.id) ? 0 : 1;
    for (size_t i = 0; i < q->copies.count; i++)
        not_begun += is_begun(state, q->copies.logs[i].id) ? 0 : 1;
    msgpack_pack_array(&pk, state->applied.count + not_begun);
    for (size_t i = 0; i < state->applied.count; i++)
        pack_progress(q, &pk, state->applied.all[i].log);
    if (!is_begun(state, q->own.id))
        pack_progress(q, &pk, q->own.id);
    for (size_t i = 0; i < q->copies.count; i++)
        if (!is_begun(state, q->copies.logs[i].id))
            pack_progress(q, &pk, q->copies.logs[i].id);
    struct msg_view_info_reply reply = {.opened = state->opened,
                                        .error = slice_str(state->error),
                                        .logs = buf_slice(&logs),
                                        .waiting = state->waiting,
                                        .tidied = state->tidied};
    struct view_store *store = view_begin_read(query_view_of(q));
    if (store != NULL) {
        reply.rows = view_store_rows(store);
        view_end_read(query_view_of(q));
    }
    query_fetch_info(q, &reply);
    query_answer(q, r->token, MSG_view_info_reply, &reply);
    buf_free(&logs);
}

void query_on_view_info(struct query *q, const struct link_request *request)
{
    if (!query_view_refuse_absent(q, request->token))
        query_ask_first(q, request->token, q->own.id, 0, answer_view_info);
}
