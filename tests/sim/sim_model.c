/* The model. Everything that contradicts it ends the process. */
#include "sim_model.h"

#include <string.h>

#include "log_verify.h"

static struct model_request *request_at(const struct model *m, size_t index)
{
    return (struct model_request *)(void *)m->requests.data + index;
}

struct model_frame *model_frame_at(const struct model *m, size_t index)
{
    return (struct model_frame *)(void *)m->frames.data + index;
}

size_t model_frame_count(const struct model *m)
{
    return m->frames.len / sizeof(struct model_frame);
}

static struct model_place *place_at(const struct model *m, size_t index)
{
    return (struct model_place *)(void *)m->places.data + index;
}

void model_free(struct model *m)
{
    buf_free(&m->bodies);
    buf_free(&m->frames);
    buf_free(&m->requests);
    buf_free(&m->places);
    *m = (struct model){0};
}

void model_append(struct model *m, const struct model_request *request, struct slice body)
{
    struct model_request copy = *request;
    copy.body_at = m->bodies.len;
    copy.body_len = body.len;
    buf_append(&m->bodies, body.data, body.len);
    buf_append(&m->requests, &copy, sizeof copy);
}

/* ---------------------------------------------------------------- judging */

enum verdict { NEW, REPEATED, REFUSED };

/* What an append must lead to, by the appends before it. */
static enum verdict judge(const struct model *m, const struct model_request *r, enum sh_error *error,
                          uint64_t *expected)
{
    const struct model_producer *p = &m->producers[r->producer];
    *expected = 0;
    *error = SH_CONFLICT;
    if (r->body_len > m->most_body) {
        *error = SH_TOO_LARGE;
        return REFUSED;
    }
    if (r->producer == 0)
        return NEW;
    if (p->epoch == 0) {
        *error = SH_SEQUENCE_EXPIRED;
        return r->sequence == 1 ? NEW : REFUSED;
    }
    if (r->epoch < p->epoch)
        return REFUSED;
    uint64_t last = r->epoch > p->epoch ? 0 : p->last;
    if (r->sequence <= last)
        return REPEATED;
    *expected = last + 1;
    return r->sequence == last + 1 ? NEW : REFUSED;
}

static void take_in(struct model *m, const struct model_request *r)
{
    struct model_frame frame = {
        .lsn = m->next_lsn,
        .count = r->count,
        .producer = r->producer,
        .epoch = r->producer == 0 ? 0 : r->epoch,
        .sequence = r->producer == 0 ? 0 : r->sequence,
        .body_at = r->body_at,
        .body_len = r->body_len,
    };
    buf_append(&m->frames, &frame, sizeof frame);
    m->next_lsn += r->count;
    if (r->producer != 0)
        m->producers[r->producer] = (struct model_producer){r->epoch, r->sequence};
}

static const struct model_frame *find_answer(const struct model *m, const struct model_request *r)
{
    for (size_t i = model_frame_count(m); i > 0; i--) {
        const struct model_frame *f = model_frame_at(m, i - 1);
        if (f->producer == r->producer && f->epoch == r->epoch && f->sequence == r->sequence)
            return f;
    }
    return NULL;
}

static void check_repeated(const struct model *m, const struct model_request *r, const struct rig_answer *a)
{
    const struct model_frame *first = find_answer(m, r);
    uint64_t age = m->producers[r->producer].last - r->sequence;
    model_check(first != NULL, "the model has lost an append");
    if (a->code == SH_SEQUENCE_EXPIRED && age >= MODEL_ANSWERS_KEPT)
        return;
    model_check(a->code == SH_OK && a->reply.lsn == first->lsn && a->reply.count == first->count,
                "a repeated append (producer %llu, sequence %llu) got code %d, LSN %llu, not LSN %llu",
                (unsigned long long)r->producer, (unsigned long long)r->sequence, (int)a->code,
                (unsigned long long)a->reply.lsn, (unsigned long long)first->lsn);
}

static void check_refused(const struct model_request *r, const struct rig_answer *a, enum sh_error error,
                          uint64_t expected)
{
    model_check(a->code == error && a->expected == expected,
                "an append (producer %llu, sequence %llu) got code %d, expected %llu; should be %d, %llu",
                (unsigned long long)r->producer, (unsigned long long)r->sequence, (int)a->code,
                (unsigned long long)a->expected, (int)error, (unsigned long long)expected);
}

/* A producer's frames may be damaged: what is known of it may be older than what the model knows. Such an
 * append may be refused, or be taken a second time, but gets no wrong answer. */
static void settle_forgotten(struct model *m, const struct model_request *r, const struct rig_answer *a)
{
    const struct model_frame *first = find_answer(m, r);
    if (a->code == SH_OK && a->reply.lsn == m->next_lsn && a->reply.count == r->count) {
        take_in(m, r);
        m->durable = model_frame_count(m);
        return;
    }
    bool refused = a->code == SH_CONFLICT || a->code == SH_SEQUENCE_EXPIRED || a->code == SH_TOO_LARGE;
    model_check(refused || (a->code == SH_OK && first != NULL && a->reply.lsn == first->lsn),
                "an append (producer %llu, sequence %llu) got code %d, LSN %llu",
                (unsigned long long)r->producer, (unsigned long long)r->sequence, (int)a->code,
                (unsigned long long)a->reply.lsn);
}

static void settle_one(struct model *m, const struct model_request *r, const struct rig_answer *a)
{
    enum sh_error error;
    uint64_t expected;
    model_check(a->times == 1, "a request was answered %u times", a->times);
    if (a->code == SH_OVERLOADED || (a->code == SH_DISK_FULL && m->may_be_full))
        return;
    if (m->forgets && r->producer != 0) {
        settle_forgotten(m, r, a);
        return;
    }
    enum verdict verdict = judge(m, r, &error, &expected);
    if (verdict == REFUSED)
        check_refused(r, a, error, expected);
    if (verdict == REPEATED)
        check_repeated(m, r, a);
    if (verdict != NEW)
        return;
    model_check(a->code == SH_OK && a->reply.lsn == m->next_lsn && a->reply.count == r->count,
                "a new append got code %d, LSN %llu; should be LSN %llu", (int)a->code,
                (unsigned long long)a->reply.lsn, (unsigned long long)m->next_lsn);
    take_in(m, r);
    m->durable = model_frame_count(m);
}

void model_settle(struct model *m, const struct wal_rig *rig)
{
    size_t count = m->requests.len / sizeof(struct model_request);
    for (; m->settled < count; m->settled++) {
        const struct model_request *r = request_at(m, m->settled);
        if (rig->answers[r->number].times == 0)
            return;
        settle_one(m, r, &rig->answers[r->number]);
    }
}

static void forget_requests(struct model *m)
{
    m->requests.len = 0;
    m->settled = 0;
}

void model_crashed(struct model *m, const struct wal_rig *rig)
{
    enum sh_error error;
    uint64_t expected;
    model_settle(m, rig);
    size_t count = m->requests.len / sizeof(struct model_request);
    for (; m->settled < count; m->settled++) {
        const struct model_request *r = request_at(m, m->settled);
        const struct rig_answer *a = &rig->answers[r->number];
        bool refused = a->times > 0 && a->code != SH_OK;
        bool is_maybe = m->forgets && r->producer != 0;
        if (refused || (!is_maybe && judge(m, r, &error, &expected) != NEW))
            continue;
        take_in(m, r);
        model_frame_at(m, model_frame_count(m) - 1)->is_maybe = is_maybe;
    }
    forget_requests(m);
}

/* ---------------------------------------------------------------- comparing */

void model_durable(struct model *m, const struct wal_rig *rig)
{
    struct model_place place = {rig->log.durable.end, rig->log.durable.checksum};
    model_check(place.end >= m->durable_end, "the durable end went back from %llu to %llu",
                (unsigned long long)m->durable_end, (unsigned long long)place.end);
    if (place.end > m->durable_end)
        buf_append(&m->places, &place, sizeof place);
    m->durable_end = place.end;
}

struct model_frame *model_find(const struct model *m, uint64_t lsn)
{
    size_t low = 0, high = model_frame_count(m);
    while (low < high) {
        size_t middle = (low + high) / 2;
        struct model_frame *f = model_frame_at(m, middle);
        if (lsn >= f->lsn && lsn < f->lsn + f->count)
            return f;
        if (f->lsn <= lsn)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

void model_check_frame(const struct model *m, const struct model_frame *f, const struct frame_header *h,
                       struct slice body)
{
    bool same = h->base_lsn == f->lsn && h->count == f->count && h->epoch == f->epoch &&
                h->sequence == f->sequence && id16_equal(h->producer, rig_producer(f->producer)) &&
                slice_equal(body, slice_of(m->bodies.data + f->body_at, f->body_len));
    model_check(same, "the frame with LSN %llu (%u entries) is not the one that was appended with LSN %llu",
                (unsigned long long)h->base_lsn, h->count, (unsigned long long)f->lsn);
}

struct comparison {
    struct model *model;
    size_t first, frames, places; /* first: of the frames that are left */
    uint64_t durable_end, first_lsn;
};

/* The log begins at the segment of this frame: that may be so, and what was before it has nothing to be
 * compared with. */
static void begin_at(struct comparison *c, const struct segment_header *first)
{
    const struct model *m = c->model;
    c->first_lsn = first->base_lsn;
    model_check(first->base_lsn <= (m->may_trim > 0 ? m->may_trim : 1) && first->base_lsn >= m->trimmed,
                "the log begins at LSN %llu; %llu was trimmed, up to %llu may have been",
                (unsigned long long)first->base_lsn, (unsigned long long)m->trimmed,
                (unsigned long long)m->may_trim);
    size_t places = m->places.len / sizeof(struct model_place);
    while (c->places < places && place_at(m, c->places)->end <= first->position)
        c->places++;
    while (c->frames < model_frame_count(m) && model_frame_at(m, c->frames)->lsn < first->base_lsn)
        c->frames++;
    c->first = c->frames;
}

/* Everything that was ever durable has one value. */
static void compare_place(struct comparison *c, uint64_t end, uint32_t checksum)
{
    const struct model *m = c->model;
    size_t count = m->places.len / sizeof(struct model_place);
    while (c->places < count && place_at(m, c->places)->end <= end) {
        const struct model_place *p = place_at(m, c->places++);
        if (p->end < end)
            model_check(m->is_damaged, "no frame ends at %llu, where one ended that was durable",
                        (unsigned long long)p->end);
        else
            model_check(p->checksum == checksum, "position %llu has two values", (unsigned long long)end);
    }
}

/* Steps over the frames that cannot be there, and those that needn't be and aren't this one. */
static void pass_absent(struct comparison *c, const struct frame_header *h, struct slice body)
{
    const struct model *m = c->model;
    for (; c->frames < model_frame_count(m); c->frames++) {
        struct model_frame *f = model_frame_at(m, c->frames);
        bool other = h->sequence != f->sequence || h->epoch != f->epoch ||
                     !id16_equal(h->producer, rig_producer(f->producer)) ||
                     !slice_equal(body, slice_of(m->bodies.data + f->body_at, f->body_len));
        f->is_gone = f->is_gone || (f->is_maybe && other);
        if (f->is_unsure)
            f->is_damaged = other || h->base_lsn != f->lsn;
        if (!f->is_damaged && !f->is_gone)
            return;
    }
}

static bool compare_frame(void *arg, const struct log_frame *frame)
{
    struct comparison *c = arg;
    const struct frame_header *h = frame->header;
    uint64_t end = frame->segment->position + frame->offset + FRAME_HEADER_BYTES + h->body_bytes;
    if (c->first_lsn == 0)
        begin_at(c, frame->segment);
    if (end > c->durable_end) /* written, not synced */
        return true;
    compare_place(c, end, h->checksum);
    if (h->kind != FRAME_DATA)
        return true;
    pass_absent(c, h, frame->body);
    model_check(c->frames < model_frame_count(c->model), "LSN %llu was never appended",
                (unsigned long long)h->base_lsn);
    bool is_new = c->frames >= c->model->durable;
    struct model_frame *f = model_frame_at(c->model, c->frames++);
    if (is_new && c->model->forgets) /* some before it may be gone */
        f->lsn = h->base_lsn;
    f->is_maybe = false;
    model_check_frame(c->model, f, h, frame->body);
    f->base = frame->segment->base_lsn;
    f->offset = frame->offset;
    return true;
}

static size_t drop_gone(struct model *m, size_t frames)
{
    size_t kept = 0;
    for (size_t i = 0; i < frames; i++)
        if (!model_frame_at(m, i)->is_gone)
            *model_frame_at(m, kept++) = *model_frame_at(m, i);
    return kept;
}

/* What didn't land has never been. */
static void keep_recovered(struct model *m, size_t frames)
{
    frames = drop_gone(m, frames);
    m->frames.len = frames * sizeof(struct model_frame);
    m->durable = frames;
    m->next_lsn = 1;
    memset(m->producers, 0, sizeof m->producers);
    for (size_t i = 0; i < frames; i++) {
        const struct model_frame *f = model_frame_at(m, i);
        m->next_lsn = f->lsn + f->count;
        if (f->producer != 0)
            m->producers[f->producer] = (struct model_producer){f->epoch, f->sequence};
    }
}

void model_compare(struct model *m, const struct wal_rig *rig, bool recovered)
{
    struct comparison c = {.model = m, .durable_end = rig->log.durable.end};
    struct log_verify_options options = {.on_frame = compare_frame, .arg = &c};
    struct log_verify_report report;
    enum sh_error error = log_verify(rig->fs, rig->data, &options, &report);
    for (; c.frames < model_frame_count(m); c.frames++) {
        struct model_frame *f = model_frame_at(m, c.frames);
        if (!f->is_damaged && !f->is_unsure)
            break;
        f->is_damaged = true;
    }
    bool has_damage = false;
    for (size_t i = c.first; i < model_frame_count(m); i++)
        has_damage |= model_frame_at(m, i)->is_damaged;
    model_check(error == (has_damage ? SH_CORRUPT : SH_OK), "log verify answers %d", (int)error);
    model_check(m->is_damaged || c.places == m->places.len / sizeof(struct model_place),
                "the log ends before something that was durable");
    model_check(c.frames >= m->durable, "of %zu acknowledged frames %zu are there", m->durable, c.frames);
    if (recovered)
        keep_recovered(m, c.frames);
    model_check(rig->log.durable.lsn + 1 == (recovered ? m->next_lsn : rig->log.durable.lsn + 1),
                "the log says it is durable up to LSN %llu, its last entry has %llu",
                (unsigned long long)rig->log.durable.lsn, (unsigned long long)m->next_lsn - 1);
}
