/* What the node answers about its cluster: three members, n1 to n3, and events as the test numbers them. */
#include "client_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { A_POLL = 4 /* most events in an answer */ };

static void pack_member(struct buf *out, unsigned number)
{
    struct buf record = {0}, marks = {0};
    msgpack_packer pk;
    char id[8], host[24];
    snprintf(id, sizeof id, "n%u", number);
    snprintf(host, sizeof host, "10.0.0.%u", number);
    struct msg_member member = {.id = slice_str(id),
                                .generation = number,
                                .status = number,
                                .log = {{(uint8_t)number}},
                                .born_ms = 1000,
                                .incarnation = 7,
                                .host = slice_str(host),
                                .port = 4000 + number,
                                .group = slice_str("default"),
                                .since_ms = 5000 + number};
    msg_encode(MSG_member, &member, &record);
    mp_packer(&pk, &marks);
    msgpack_pack_array(&pk, 1);
    msgpack_pack_array(&pk, 3);
    mp_pack_bin(&pk, slice_of(member.log.bytes, sizeof member.log.bytes));
    msgpack_pack_uint64(&pk, 100 * number);
    msgpack_pack_uint64(&pk, 1000 * number);
    struct msg_node_info info = {.member = buf_slice(&record),
                                 .self = number == 1,
                                 .observed = number == 2,
                                 .unreachable = number == 3,
                                 .drifting = number == 3,
                                 .heard_ms = number == 2 ? 1201 : 0,
                                 .ahead_ms = number == 2 ? 30 : 0,
                                 .behind_ms = number == 3 ? 40 : 0,
                                 .watermarks = number > 1 ? buf_slice(&marks) : (struct slice){0}};
    msg_encode(MSG_node_info, &info, out);
    buf_free(&record);
    buf_free(&marks);
}

static void on_nodes(struct node *n, struct link_token token)
{
    struct buf list = {0}, counters = {0};
    msgpack_packer pk;
    mp_packer(&pk, &list);
    msgpack_pack_array(&pk, n->odd ? 4 : 3);
    for (unsigned i = 1; i <= 3; i++)
        pack_member(&list, i);
    if (n->odd)
        msgpack_pack_array(&pk, 0);
    mp_packer(&pk, &counters);
    msgpack_pack_map(&pk, 1);
    mp_pack_cstr(&pk, "sent");
    msgpack_pack_uint64(&pk, 12);
    struct msg_nodes_reply reply = {.cluster = slice_str("test"),
                                    .node = slice_str("n1"),
                                    .state = 2,
                                    .nodes = buf_slice(&list),
                                    .only_first = 5,
                                    .only_last = 9,
                                    .counters = buf_slice(&counters),
                                    .text = slice_str("it left"),
                                    .next_event = n->event_next};
    node_answer(token, MSG_nodes_reply, &reply);
    buf_free(&list);
    buf_free(&counters);
}

static void on_join(struct node *n, const struct link_request *request)
{
    struct msg_node_join m;
    if (msg_decode(MSG_node_join, request->body, &m) != SH_OK)
        abort();
    snprintf(n->joined, sizeof n->joined, "join %.*s %.*s %u %u %.*s %d", (int)m.id.len,
             (const char *)m.id.data, (int)m.host.len, (const char *)m.host.data, (unsigned)m.port,
             (unsigned)m.admin_port, (int)m.group.len, (const char *)m.group.data, m.replace);
    node_answer(request->token, MSG_node_join_reply, &(struct msg_node_join_reply){.generation = 3});
}

static void on_leave(struct node *n, const struct link_request *request)
{
    struct msg_node_leave m;
    if (msg_decode(MSG_node_leave, request->body, &m) != SH_OK)
        abort();
    snprintf(n->joined, sizeof n->joined, "leave %.*s", (int)m.id.len, (const char *)m.id.data);
    struct msg_node_leave_reply reply = {.generation = 2, .log = {{9}}, .only_first = 4, .only_last = 8};
    node_answer(request->token, MSG_node_leave_reply, &reply);
}

static void pack_event(struct buf *out, uint64_t number)
{
    char id[24];
    snprintf(id, sizeof id, "m%u", (unsigned)number);
    struct msg_event event = {.number = number,
                              .kind = number % 15 + 1,
                              .wall_ms = 1000 + number,
                              .id = slice_str(id),
                              .generation = 2,
                              .incarnation = 3,
                              .text = slice_str("words")};
    msg_encode(MSG_event, &event, out);
}

static void answer_events(struct node *n, struct link_token token, uint64_t after)
{
    uint64_t from = after + 1 > n->event_first ? after + 1 : n->event_first;
    uint64_t count = from < n->event_next ? n->event_next - from : 0;
    struct buf list = {0};
    msgpack_packer pk;
    count = count < A_POLL ? count : A_POLL;
    mp_packer(&pk, &list);
    msgpack_pack_array(&pk, count);
    for (uint64_t i = 0; i < count; i++)
        pack_event(&list, from + i + n->odd);
    struct msg_events_reply reply = {
        .series = n->series, .first = n->event_first, .events = buf_slice(&list)};
    node_answer(token, MSG_events_reply, &reply);
    buf_free(&list);
}

void node_answer_poll(struct node *n)
{
    if (!n->parked || n->poll_after + 1 >= n->event_next)
        return;
    n->parked = false;
    answer_events(n, n->poll, n->poll_after);
}

static void on_events(struct node *n, const struct link_request *request)
{
    struct msg_events m;
    if (msg_decode(MSG_events, request->body, &m) != SH_OK)
        abort();
    bool is_other = !id16_is_zero(m.series) && !id16_equal(m.series, n->series);
    uint64_t after = is_other ? 0 : m.after;
    if (m.wait_ms == 0 || is_other) {
        answer_events(n, request->token, after);
        return;
    }
    n->parked = true;
    n->poll = request->token;
    n->poll_after = after;
    node_answer_poll(n);
}

bool node_on_members(struct node *n, const struct link_request *request)
{
    bool changes = request->type == MSG_node_join || request->type == MSG_node_leave;
    if (!changes && request->type != MSG_nodes && request->type != MSG_events)
        return false;
    if (n->member_away)
        node_refuse(request->token, SH_UNAVAILABLE, 0);
    else if (changes && n->member_refuse != SH_OK)
        node_refuse(request->token, n->member_refuse, 0);
    else if (request->type == MSG_nodes)
        on_nodes(n, request->token);
    else if (request->type == MSG_node_join)
        on_join(n, request);
    else if (request->type == MSG_node_leave)
        on_leave(n, request);
    else
        on_events(n, request);
    return true;
}
