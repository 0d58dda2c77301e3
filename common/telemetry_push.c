/* The push. One for the process; nothing here is fatal.
 *
 *   every second, or an event: nothing under way ──► message ──► answered: events up to its number go
 *                              one under way: the next turn tells of it */
#include "telemetry_push.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service.h"

enum { GATHERERS = 8, QUEUE_BYTES = 4 << 20, SERIES_MAX = 4096 };
#define PUSH_EACH_NS NS_PER_S
#define PACK_EACH_NS (NS_PER_S / 2)
#define LAST_WORD_MS 250

struct gatherer {
    uint32_t (*fn)(void *arg, msgpack_packer *pk);
    void *arg;
};

/* Of any thread. Event n is events[n % TELEMETRY_EVENTS], for n from `first` to `next` - 1. */
static struct {
    pthread_mutex_t lock;
    struct buf events[TELEMETRY_EVENTS];
    uint64_t first, next, lost;
    struct mailbox *mailbox; /* NULL: nobody is told */
    struct mail mail;
    bool posted;
} ring = {.lock = PTHREAD_MUTEX_INITIALIZER, .first = 1, .next = 1};

/* Of the loop. */
static struct {
    struct service *service;
    const char *name;
    char endpoint[LINK_ENDPOINT_MAX];
    struct link_client *link; /* NULL: there is no obssvc */
    uint64_t under_way;       /* number of the message, 0 for none */
    struct loop_timer timer;
    struct mailbox mailbox;
    struct buf series; /* as packed last: events that come one after the other go with the same ones */
    int64_t packed_ns;
} push;

static struct gatherer gatherers[GATHERERS];
static size_t gatherer_count;

void telemetry_on_gather(uint32_t (*fn)(void *arg, msgpack_packer *pk), void *arg)
{
    if (gatherer_count == GATHERERS)
        abort();
    gatherers[gatherer_count++] = (struct gatherer){fn, arg};
}

/* ---------------------------------------------------------------- events */

static void pack_field(msgpack_packer *pk, const struct log_field *f)
{
    mp_pack_cstr(pk, f->name);
    if (f->kind == LOG_TEXT)
        mp_pack_cstr(pk, f->text != NULL ? f->text : "");
    else if (f->kind == LOG_SLICE)
        mp_pack_str(pk, f->slice);
    else if (f->kind == LOG_NUMBER)
        msgpack_pack_int64(pk, f->number);
    else
        msgpack_pack_uint64(pk, f->unsigned_number);
}

/* Cut between two characters: obssvc refuses half of one. */
static struct slice cut_text(const char *text)
{
    size_t len = strnlen(text, TELEMETRY_EVENT_BYTES / 4);
    while (len > 0 && text[len] != 0 && ((uint8_t)text[len] & 0xc0) == 0x80)
        len--;
    return slice_of(text, len);
}

/* Fields that would make it longer than TELEMETRY_EVENT_BYTES are left out. */
static void pack_event(struct buf *out, uint64_t number, enum log_level level, const char *kind,
                       const char *text, const struct log_field *fields)
{
    msgpack_packer pk;
    struct buf packed = {0};
    uint32_t count = 0;
    mp_packer(&pk, &packed);
    for (; fields->kind != LOG_END; fields++) {
        size_t before = packed.len;
        pack_field(&pk, fields);
        if (packed.len > TELEMETRY_EVENT_BYTES / 2)
            packed.len = before;
        else
            count++;
    }
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, 6);
    msgpack_pack_uint64(&pk, number);
    msgpack_pack_uint64(&pk, (uint64_t)(clock_real_ns() / NS_PER_MS));
    msgpack_pack_uint8(&pk, (uint8_t)level);
    mp_pack_cstr(&pk, kind);
    mp_pack_str(&pk, cut_text(text));
    msgpack_pack_map(&pk, count);
    buf_append(out, packed.data, packed.len);
    buf_free(&packed);
}

void telemetry_event(enum log_level level, const char *kind, const char *text, const struct log_field *fields)
{
    log_line(level, 0, text, fields);
    pthread_mutex_lock(&ring.lock);
    bool may_displace = level > LOG_INFO;
    if (ring.next - ring.first >= (may_displace ? TELEMETRY_EVENTS : TELEMETRY_EVENTS / 2))
        ring.lost++;
    if (!may_displace && ring.next - ring.first >= TELEMETRY_EVENTS / 2) {
        pthread_mutex_unlock(&ring.lock);
        return;
    }
    if (ring.next - ring.first == TELEMETRY_EVENTS)
        ring.first++;
    struct buf *event = &ring.events[ring.next % TELEMETRY_EVENTS];
    event->len = 0;
    pack_event(event, ring.next++, level, kind, text, fields);
    if (ring.mailbox != NULL && !ring.posted) {
        ring.posted = true;
        mailbox_put(ring.mailbox, &ring.mail);
    }
    pthread_mutex_unlock(&ring.lock);
}

/* Appends the array; *lost is how many found no room. */
static void pack_events(struct buf *out, uint64_t *lost)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    pthread_mutex_lock(&ring.lock);
    msgpack_pack_array(&pk, ring.next - ring.first);
    for (uint64_t n = ring.first; n < ring.next; n++) {
        const struct buf *event = &ring.events[n % TELEMETRY_EVENTS];
        buf_append(out, event->data, event->len);
    }
    *lost = ring.lost;
    pthread_mutex_unlock(&ring.lock);
}

/* True: there are others. */
static bool forget_events(uint64_t taken)
{
    pthread_mutex_lock(&ring.lock);
    if (taken >= ring.first && taken < ring.next)
        ring.first = taken + 1;
    bool has_more = ring.first < ring.next;
    pthread_mutex_unlock(&ring.lock);
    return has_more;
}

/* ---------------------------------------------------------------- messages */

static void pack_all(void)
{
    msgpack_packer pk;
    struct buf series = {0};
    if (push.packed_ns != 0 && clock_mono_ns() - push.packed_ns < PACK_EACH_NS)
        return;
    push.packed_ns = clock_mono_ns();
    mp_packer(&pk, &series);
    uint32_t count = telemetry_pack(&pk, push.name) + telemetry_pack_process(&pk, push.name);
    for (size_t i = 0; i < gatherer_count && count < SERIES_MAX; i++)
        count += gatherers[i].fn(gatherers[i].arg, &pk);
    push.series.len = 0;
    mp_packer(&pk, &push.series);
    msgpack_pack_array(&pk, count);
    buf_append(&push.series, series.data, series.len);
    buf_free(&series);
}

static void send_all(void)
{
    struct buf events = {0}, body = {0};
    if (push.under_way != 0)
        return;
    struct msg_telemetry m = {.service = slice_str(push.name), .boot = push.service->boot};
    pack_all();
    pack_events(&events, &m.lost);
    m.series = buf_slice(&push.series);
    m.happened = buf_slice(&events);
    msg_encode(MSG_telemetry, &m, &body);
    if (link_client_send(push.link, MSG_telemetry, 0, buf_slice(&body), (struct slice){0}, &push.under_way) !=
        SH_OK)
        push.under_way = 0;
    buf_free(&events);
    buf_free(&body);
}

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct msg_telemetry_reply reply;
    (void)arg;
    if (number != push.under_way)
        return;
    push.under_way = 0;
    if (type == MSG_telemetry_reply && msg_decode(type, body, &reply) == SH_OK &&
        forget_events(reply.happened))
        send_all();
}

static void on_timer(void *arg)
{
    (void)arg;
    loop_timer_after(push.service->loop, &push.timer, PUSH_EACH_NS);
    send_all();
}

static void on_mail(void *arg, struct mail *first)
{
    (void)arg;
    (void)first;
    pthread_mutex_lock(&ring.lock);
    ring.posted = false;
    pthread_mutex_unlock(&ring.lock);
    if (push.link != NULL)
        send_all();
}

/* ---------------------------------------------------------------- life */

static bool has_events(void)
{
    pthread_mutex_lock(&ring.lock);
    bool has = ring.first < ring.next;
    pthread_mutex_unlock(&ring.lock);
    return has;
}

static bool has_obssvc(const struct config *config)
{
    for (size_t i = 0; i < config->tree_count; i++)
        if (config->tree[i].kind == TREE_SERVICE && strcmp(config->tree[i].name, "obssvc") == 0)
            return true;
    return false;
}

void telemetry_push_open(struct service *service, const char *name)
{
    push.service = service;
    push.name = name;
    if (!has_obssvc(service->config))
        return;
    snprintf(push.endpoint, sizeof push.endpoint, "ipc://%.200s/obs", service->config->run_dir);
    const struct link_client_options options = {
        .loop = service->loop,
        .endpoint = push.endpoint,
        .message_bytes = link_server_default_limits().message_bytes,
        .queue_bytes = QUEUE_BYTES,
        .cluster = service->cluster,
        .sender = slice_str(service->config->self->id),
        .on_answer = on_answer,
    };
    if (link_client_open(&options, &push.link) != SH_OK)
        return;
    push.timer = (struct loop_timer){.fn = on_timer};
    loop_timer_after(service->loop, &push.timer, PUSH_EACH_NS);
    mailbox_open(&push.mailbox, service->loop, on_mail, NULL);
    pthread_mutex_lock(&ring.lock);
    ring.mailbox = &push.mailbox;
    pthread_mutex_unlock(&ring.lock);
}

/* What happened last may be why the process ends. */
static void tell_the_last(void)
{
    int64_t due_ns = clock_mono_ns() + LAST_WORD_MS * NS_PER_MS;
    send_all();
    while (has_events() && link_client_is_connected(push.link) && clock_mono_ns() < due_ns)
        loop_step(push.service->loop, 10);
}

void telemetry_push_close(void)
{
    if (push.link == NULL)
        return;
    if (has_events())
        tell_the_last();
    pthread_mutex_lock(&ring.lock);
    ring.mailbox = NULL;
    ring.posted = false;
    pthread_mutex_unlock(&ring.lock);
    loop_timer_cancel(push.service->loop, &push.timer);
    link_client_close(push.link);
    push.link = NULL;
    push.under_way = 0;
    mailbox_close(&push.mailbox);
    buf_free(&push.series);
    push.packed_ns = 0;
}
