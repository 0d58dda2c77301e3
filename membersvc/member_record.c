/* One member's record: which of two holds, its hash, its bytes. Pure; bad bytes get an error. */
#include <assert.h>
#include <string.h>

#include "digest.h"
#include "member.h"

const char *member_status_name(enum member_status status)
{
    static const char *const names[] = {"joining", "up", "suspect", "down", "must_rejoin", "left"};
    return (size_t)status < sizeof names / sizeof names[0] ? names[status] : "unknown";
}

/* ------------------------------------------------------------ which of two holds */

static int compare_numbers(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int compare_ids(struct id16 a, struct id16 b)
{
    return memcmp(a.bytes, b.bytes, sizeof a.bytes);
}

static int compare_identities(const struct member_record *a, const struct member_record *b)
{
    bool a_bound = !id16_is_zero(a->log), b_bound = !id16_is_zero(b->log);
    if (!a_bound || !b_bound)
        return a_bound - b_bound;
    int order = compare_numbers(b->born_ms, a->born_ms);
    return order != 0 ? order : compare_ids(b->log, a->log);
}

/* Nothing here makes one better than the other. born_ms tells apart only those that aren't bound. */
static int compare_rest(const struct member_record *a, const struct member_record *b)
{
    const int orders[] = {
        compare_ids(a->boot, b->boot),
        compare_numbers(b->since_ms, a->since_ms),
        strcmp(a->host, b->host),
        compare_numbers(a->port, b->port),
        compare_numbers(a->admin_port, b->admin_port),
        strcmp(a->group, b->group),
        compare_ids(a->not_log, b->not_log),
        compare_numbers(a->born_ms, b->born_ms),
    };
    size_t i = 0;
    while (i < sizeof orders / sizeof orders[0] - 1 && orders[i] == 0)
        i++;
    return orders[i];
}

int member_compare(const struct member_record *a, const struct member_record *b)
{
    assert(strcmp(a->id, b->id) == 0);
    int order = compare_numbers(a->generation, b->generation);
    if (order == 0)
        order = (a->status == MEMBER_LEFT) - (b->status == MEMBER_LEFT);
    if (order == 0)
        order = compare_identities(a, b);
    if (order == 0)
        order = compare_numbers(a->incarnation, b->incarnation);
    if (order == 0)
        order = compare_numbers(a->status, b->status);
    return order != 0 ? order : compare_rest(a, b);
}

/* ------------------------------------------------------------ bytes */

void member_encode(const struct member_record *record, struct buf *out)
{
    struct msg_member m = {
        .id = slice_str(record->id),
        .generation = record->generation,
        .status = record->status,
        .log = record->log,
        .born_ms = record->born_ms,
        .incarnation = record->incarnation,
        .boot = record->boot,
        .host = slice_str(record->host),
        .port = record->port,
        .admin_port = record->admin_port,
        .group = slice_str(record->group),
        .since_ms = record->since_ms,
        .not_log = record->not_log,
    };
    msg_encode(MSG_member, &m, out);
}

/* A record has one encoding: fields in the order of the table, integers as short as they can be. */
uint64_t member_hash(const struct member_record *record)
{
    struct buf bytes = {0};
    member_encode(record, &bytes);
    uint64_t hash = digest64(buf_slice(&bytes));
    buf_free(&bytes);
    return hash;
}

/* The text without a NUL in it, and valid; size: of out. */
static bool take(struct slice text, bool (*is_valid)(const char *), char *out, size_t size)
{
    assert(text.len < size); /* msg_decode has seen to it */
    memcpy(out, text.data, text.len);
    out[text.len] = 0;
    return strlen(out) == text.len && is_valid(out);
}

enum sh_error member_decode(struct slice bytes, struct member_record *out)
{
    struct msg_member m;
    enum sh_error e = msg_decode(MSG_member, bytes, &m);
    if (e != SH_OK)
        return e;
    *out = (struct member_record){
        .port = (uint16_t)m.port,
        .admin_port = (uint16_t)m.admin_port,
        .status = (enum member_status)m.status,
        .generation = m.generation,
        .incarnation = m.incarnation,
        .born_ms = m.born_ms,
        .since_ms = m.since_ms,
        .log = m.log,
        .boot = m.boot,
        .not_log = m.not_log,
    };
    bool good = take(m.id, config_name_is_valid, out->id, sizeof out->id) &&
                take(m.group, config_name_is_valid, out->group, sizeof out->group) &&
                take(m.host, config_host_is_valid, out->host, sizeof out->host) && m.port > 0 &&
                (id16_is_zero(m.log) || m.incarnation > 0);
    return good ? SH_OK : SH_BAD_REQUEST;
}
