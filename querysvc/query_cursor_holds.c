/* What cursors hold back from trims: in each log of the node a hold for each cursor that lives, from its
 * position on (view_cursor.h says which). walsvc is asked one message after the other, and told of moves ten
 * times a second at most: a hold that lags keeps a little too much, never too little. */
#include "query.h"

#include <stdlib.h>
#include <string.h>

#include "view.h"
#include "view_cursor.h"

enum { PAUSE_MS = 100, RETRY_MS = 1000, RENEW_MS = 60000, BUSY_SHARE = 10 };
enum { HOLD_CURSOR = 5, HOLD_PARTS = 6 };

/* A log, and what is asked of its holds. */
struct held_cursor_log {
    struct cursor_log holds;
    uint64_t
        start_lsn; /* how far it was when it was met: the view may be behind that, and know old positions */
    bool skip;     /* walsvc refuses: not again in this round */
};

struct cursor_holder {
    struct query *q;
    struct cursor_wants wants;
    size_t expected;  /* that came since the rows were read */
    bool too_many;    /* said so */
    uint64_t seen;    /* rows, as of view_vector.cursors; 0: never */
    uint64_t next_ms; /* when the first cursor expires; UINT64_MAX: none does */
    int64_t rows_ns;  /* what it took to read them */
    int64_t round_ns; /* when the last round began */
    struct held_cursor_log *logs;
    size_t count, room;
    struct loop_timer timer;
    bool running, refused;
    bool knows_ends; /* walsvc has told how far the logs are */
    bool caught_up;
    uint64_t number; /* of the message that is on its way; 0: none */
    struct id16 asked_log;
    struct cursor_step asked; /* HOLDS_DONE: the list of holds */
    uint64_t asked_lsn;       /* that the message names: later than the wanted one when that was trimmed */
};

static uint64_t now_ms(void)
{
    return (uint64_t)(clock_real_ns() / NS_PER_MS);
}

size_t cursor_holder_count(const struct cursor_holder *h)
{
    return h->wants.count + h->expected;
}

void cursor_holder_expect(struct cursor_holder *h)
{
    h->expected++;
}

/* ---------------------------------------------------------------- what is wanted */

static void take_row(struct cursor_holder *h, struct slice name, const struct view_cursor *cursor)
{
    if (!view_cursor_lives(cursor, now_ms())) {
        for (size_t i = 0; i < h->count; i++)
            cursor_log_gone(&h->logs[i].holds, name);
        return;
    }
    if (!cursor_wants_add(&h->wants, name, cursor)) {
        if (!h->too_many)
            log_warn("more cursors than 256: the last ones, by name, hold nothing back");
        h->too_many = true;
        return;
    }
    h->next_ms = cursor->expires_ms < h->next_ms ? cursor->expires_ms : h->next_ms;
}

/* All rows of cursors. */
static void read_rows(struct cursor_holder *h, struct view_store *store)
{
    static const uint8_t first = VIEW_CURSOR, behind = VIEW_CURSOR + 1;
    char error[VIEW_ERROR_MAX] = "";
    struct slice key, row;
    struct view_cursor cursor;
    int64_t begin_ns = clock_mono_ns();
    cursor_wants_clear(&h->wants);
    h->expected = 0;
    h->next_ms = UINT64_MAX;
    struct view_scan *scan = view_scan_open(store, slice_of(&first, 1), slice_of(&behind, 1));
    while (view_scan_next(scan, &key, &row, error))
        if (view_cursor_decode(row, &cursor))
            take_row(h, slice_of(key.data + 1, key.len - 1), &cursor);
    view_scan_close(scan);
    if (error[0] != 0)
        log_error("the view cannot be read", log_text("error", error));
    h->too_many = h->too_many && h->wants.count == CURSOR_HOLDS_MAX;
    h->rows_ns = clock_mono_ns() - begin_ns;
}

/* Whether a view that has applied that knows all that was in the logs when they were met. */
static bool is_caught_up(struct cursor_holder *h, const struct view_vector *applied)
{
    bool caught_up = h->knows_ends;
    for (size_t i = 0; i < h->count && caught_up; i++) {
        const struct view_place *place = view_place_of(applied, h->logs[i].holds.log);
        const struct query_log *log = query_find_log(h->q, h->logs[i].holds.log);
        uint64_t start_lsn = h->logs[i].start_lsn;
        if (log != NULL && log->durable_lsn < start_lsn)
            start_lsn = log->durable_lsn; /* it was set back */
        caught_up = (place != NULL ? place->lsn : 0) >= start_lsn;
    }
    return caught_up;
}

/* False: they cannot be read now. */
static bool look_at_rows(struct cursor_holder *h)
{
    struct view_vector applied = query_view_state(h->q)->applied;
    uint64_t version = applied.cursors;
    char error[VIEW_ERROR_MAX];
    if (h->seen == version && now_ms() < h->next_ms) {
        h->caught_up = is_caught_up(h, &applied); /* the rows are at least as new */
        return true;
    }
    struct view_store *store = view_begin_read(query_view_of(h->q));
    if (store == NULL)
        return false;
    /* What was told may be of a view that is being made again. */
    bool is_known = view_vector_load(store, &applied, error) != VIEW_FAILED;
    h->caught_up = is_known && is_caught_up(h, &applied);
    read_rows(h, store);
    view_end_read(query_view_of(h->q));
    h->seen = version;
    return true;
}

/* ---------------------------------------------------------------- the logs */

static struct held_cursor_log *find_log(struct cursor_holder *h, struct id16 log)
{
    for (size_t i = 0; i < h->count; i++)
        if (id16_equal(h->logs[i].holds.log, log))
            return &h->logs[i];
    return NULL;
}

static void add_log(struct cursor_holder *h, const struct query_log *log)
{
    if (find_log(h, log->id) != NULL)
        return;
    if (h->count == h->room) {
        h->room = h->room > 0 ? 2 * h->room : 8;
        h->logs = xrealloc(h->logs, h->room * sizeof *h->logs);
    }
    h->logs[h->count++] = (struct held_cursor_log){.holds = {.log = log->id}, .start_lsn = log->durable_lsn};
}

/* Those that the node holds now. */
static void look_at_logs(struct cursor_holder *h)
{
    for (size_t i = 0; i < h->count;) {
        if (query_find_log(h->q, h->logs[i].holds.log) != NULL) {
            h->logs[i++].skip = false;
            continue;
        }
        cursor_log_free(&h->logs[i].holds);
        h->logs[i] = h->logs[--h->count];
    }
    add_log(h, &h->q->own);
    for (size_t i = 0; i < h->q->copies.count; i++)
        add_log(h, &h->q->copies.logs[i]);
    if (!h->q->heard)
        query_probe(h->q, &h->q->probes);
    for (size_t i = 0; i < h->count && !h->knows_ends; i++)
        h->logs[i].start_lsn = query_find_log(h->q, h->logs[i].holds.log)->durable_lsn;
    h->knows_ends = h->q->heard && h->q->copies.known;
}

/* ---------------------------------------------------------------- a round: message by message */

static void ask_for_list(struct cursor_holder *h, struct id16 log)
{
    const struct msg_wal_info ask = {.log = log, .from = UINT64_MAX}; /* no segments */
    h->asked_log = log;
    h->asked = (struct cursor_step){.kind = HOLDS_DONE};
    h->number = query_ask_wal(h->q, MSG_wal_info, &ask);
}

static void ask_for_hold(struct cursor_holder *h, struct id16 log, const struct cursor_step *step,
                         uint64_t lsn)
{
    const struct msg_hold ask = {
        .log = log,
        .name = slice_str(step->name),
        .kind = HOLD_CURSOR,
        .lsn = lsn,
        .ttl_ms = step->ttl_ms,
        .remove = step->kind == HOLDS_REMOVE,
    };
    h->asked_log = log;
    h->asked = *step;
    h->asked_lsn = lsn;
    h->number = query_ask_wal(h->q, MSG_hold, &ask);
}

/* The next message of the log. False: it needs none. */
static bool ask_of(struct cursor_holder *h, const struct held_cursor_log *log)
{
    struct cursor_step step;
    if (log->skip)
        return false;
    if (!log->holds.listed) {
        ask_for_list(h, log->holds.log);
        return true;
    }
    cursor_holds_step(&log->holds, &h->wants, h->caught_up, now_ms(), &step);
    if (step.kind == HOLDS_DONE)
        return false;
    ask_for_hold(h, log->holds.log, &step, step.lsn);
    return true;
}

static void set_timer(struct cursor_holder *h, int64_t delay_ms)
{
    loop_timer_after(h->q->service->loop, &h->timer, delay_ms * (int64_t)NS_PER_MS);
}

/* The round is over: the next one comes when something changes, a cursor expires, or a hold is to be renewed.
 */
static void end_round(struct cursor_holder *h)
{
    bool skipped = !h->caught_up;
    uint64_t now = now_ms(), delay_ms = RENEW_MS;
    for (size_t i = 0; i < h->count; i++)
        skipped = skipped || h->logs[i].skip;
    if (h->next_ms < UINT64_MAX)
        delay_ms = h->next_ms <= now ? 0 : h->next_ms - now < RENEW_MS ? h->next_ms - now : RENEW_MS;
    if (skipped && delay_ms > RETRY_MS)
        delay_ms = RETRY_MS;
    h->running = false;
    if (h->wants.count > 0 || skipped)
        set_timer(h, (int64_t)(delay_ms > PAUSE_MS ? delay_ms : PAUSE_MS));
}

/* A tenth of the time at most goes into reading rows. */
void cursor_holder_look(struct cursor_holder *h)
{
    int64_t now_ns = loop_now_ns(h->q->service->loop), pause_ns = h->rows_ns * BUSY_SHARE;
    if (pause_ns < PAUSE_MS * (int64_t)NS_PER_MS)
        pause_ns = PAUSE_MS * (int64_t)NS_PER_MS;
    bool rows_changed = h->seen != query_view_state(h->q)->applied.cursors,
         logs_changed = h->count != 1 + h->q->copies.count;
    if (h->running || h->q->watch == NULL || !(rows_changed || logs_changed))
        return;
    int64_t due_ns = h->round_ns + pause_ns;
    loop_timer_set(h->q->service->loop, &h->timer, due_ns > now_ns ? due_ns : now_ns);
}

static void go_on(struct cursor_holder *h)
{
    bool asked = h->number != 0;
    for (size_t i = 0; i < h->count && !asked; i++)
        asked = ask_of(h, &h->logs[i]);
    if (asked)
        return;
    end_round(h);
    cursor_holder_look(h);
}

static void on_timer(void *arg)
{
    struct cursor_holder *h = arg;
    if (h->running || h->q->watch == NULL)
        return;
    h->running = true;
    h->round_ns = loop_now_ns(h->q->service->loop);
    look_at_logs(h);
    if (look_at_rows(h))
        go_on(h);
    else
        h->running = false; /* the view tells when it is open */
}

/* ---------------------------------------------------------------- answers */

static bool next_hold(struct mp *m, uint64_t *kind, struct slice *name, uint64_t *lsn, uint64_t *until_ns)
{
    uint32_t parts;
    if (!mp_array(m, &parts) || parts < HOLD_PARTS || !mp_uint(m, kind) || !mp_str(m, name) ||
        !mp_uint(m, lsn) || !mp_uint(m, until_ns))
        return false;
    for (uint32_t i = 4; i < parts; i++)
        if (!mp_skip(m))
            return false;
    return true;
}

static bool take_list(struct held_cursor_log *log, struct slice list)
{
    struct mp m = mp_of(list);
    uint64_t kind, lsn, until_ns;
    struct slice name;
    uint32_t count;
    cursor_log_free(&log->holds);
    if (!mp_array(&m, &count))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        char text[CURSOR_NAME_MAX + 1] = "";
        if (!next_hold(&m, &kind, &name, &lsn, &until_ns))
            return false;
        if (kind != HOLD_CURSOR || name.len > CURSOR_NAME_MAX)
            continue;
        memcpy(text, name.data, name.len);
        cursor_log_set(&log->holds, text, lsn, until_ns / NS_PER_MS);
    }
    return true;
}

static void on_list(struct cursor_holder *h, struct held_cursor_log *log, uint32_t type, struct slice body)
{
    struct msg_wal_info_reply reply;
    if (type == MSG_wal_info_reply && msg_decode(type, body, &reply) == SH_OK &&
        take_list(log, reply.holds)) {
        log->holds.listed = true;
        h->seen = 0; /* which of them are of cursors that are gone */
        look_at_rows(h);
    } else {
        log->skip = true;
    }
}

static void take_hold(struct cursor_holder *h, struct held_cursor_log *log)
{
    h->refused = false;
    if (h->asked.kind == HOLDS_REMOVE)
        cursor_log_remove(&log->holds, h->asked.name);
    else
        cursor_log_set(&log->holds, h->asked.name, h->asked.lsn, now_ms() + h->asked.ttl_ms);
}

static void on_hold(struct cursor_holder *h, struct held_cursor_log *log, uint32_t type, struct slice body)
{
    struct msg_error error = {.text = slice_str("malformed")};
    if (type == MSG_hold_reply) {
        take_hold(h, log);
        return;
    }
    if (type == MSG_error && msg_decode(type, body, &error) == SH_OK && error.code == SH_TRIMMED &&
        error.expected > h->asked_lsn) {
        ask_for_hold(h, log->holds.log, &h->asked, error.expected); /* what is left of it */
        return;
    }
    if (!h->refused)
        log_warn("walsvc does not keep what a cursor needs", log_text("cursor", h->asked.name),
                 log_slice("text", error.text));
    h->refused = log->skip = true;
}

bool cursor_holder_answer(struct cursor_holder *h, uint64_t number, uint32_t type, struct slice body)
{
    if (h->number == 0 || number != h->number)
        return false;
    struct held_cursor_log *log = find_log(h, h->asked_log);
    h->number = 0;
    if (log != NULL && h->asked.kind == HOLDS_DONE)
        on_list(h, log, type, body);
    else if (log != NULL)
        on_hold(h, log, type, body);
    go_on(h);
    return true;
}

/* ---------------------------------------------------------------- life */

void cursor_holder_restart(struct cursor_holder *h)
{
    for (size_t i = 0; i < h->count; i++)
        h->logs[i].holds.listed = false;
    if (!h->running)
        set_timer(h, PAUSE_MS);
}

struct cursor_holder *cursor_holder_open(struct query *q)
{
    struct cursor_holder *h = xcalloc(1, sizeof *h);
    h->q = q;
    h->next_ms = UINT64_MAX;
    h->timer = (struct loop_timer){.fn = on_timer, .arg = h};
    return h;
}

void cursor_holder_close(struct cursor_holder *h)
{
    loop_timer_cancel(h->q->service->loop, &h->timer);
    cursor_wants_clear(&h->wants);
    for (size_t i = 0; i < h->count; i++)
        cursor_log_free(&h->logs[i].holds);
    free(h->logs);
    free(h);
}
