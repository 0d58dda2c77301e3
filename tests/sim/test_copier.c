/* The copier with its threads, on a simulated disk: order, durability, a full disk, marks, borrowed bytes,
 * and copies that cannot be opened. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "copy_rig.h"
#include "log.h"
#include "wal_copier.h"

enum { TOKENS_MAX = ORIGIN_UNITS_MAX, PATIENCE_S = 30, HELD_S = 10, SLOW_NS = 70 * NS_PER_MS };
static const char data[] = HOLDER_DATA;
static struct origin origin;
static struct sim_disk *disk;
static const struct vfs *fs;
static struct wal_dir dir;
static struct wal_copier *copier;

/* What the copier has told. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    unsigned news;
    enum sh_error state;
    struct wal_durable durable;
    uint64_t first_lsn;
    struct wal_given_up given_up;
    struct wal_refusal answers[TOKENS_MAX]; /* by the request's number */
    bool answered[TOKENS_MAX];
} told = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

static void on_news(void *arg, const struct wal_copy_news *news)
{
    (void)arg;
    pthread_mutex_lock(&told.lock);
    told.news++;
    told.state = news->state;
    told.durable = news->durable;
    told.given_up = news->given_up;
    told.first_lsn = news->first_lsn != 0 ? news->first_lsn : told.first_lsn;
    for (size_t i = 0; i < news->count; i++) {
        assert_false(told.answered[news->answers[i].token.number]);
        told.answered[news->answers[i].token.number] = true;
        told.answers[news->answers[i].token.number] = news->answers[i].refusal;
    }
    free(news->answers);
    pthread_cond_broadcast(&told.more);
    pthread_mutex_unlock(&told.lock);
}

/* With the lock, which it lets go of when it fails. */
static void wait_more(void)
{
    struct timespec due;
    clock_gettime(CLOCK_REALTIME, &due);
    due.tv_sec += PATIENCE_S;
    if (pthread_cond_timedwait(&told.more, &told.lock, &due) == 0)
        return;
    pthread_mutex_unlock(&told.lock);
    fail_msg("the copier says nothing more");
}

static void on_answer(void *arg, struct link_token token, uint32_t type, struct buf *body)
{
    (void)arg, (void)token, (void)type;
    buf_free(body);
}

static void on_index_lost(void *arg, struct wal_store *store)
{
    (void)arg, (void)store;
}

static void on_trimmed(void *arg, struct wal_store *store, uint64_t first_lsn)
{
    (void)arg, (void)store, (void)first_lsn;
}

/* Waits until it has told how it is. */
static void start(enum sh_error expected)
{
    struct wal_copier_options options = {
        .dir = &dir,
        .log = origin.log,
        .store = {.settings = {.disk_reserve = 1, .member_hold_max = UINT64_MAX},
                  .segment_size = ORIGIN_SEGMENT,
                  .on_answer = on_answer,
                  .on_index_lost = on_index_lost,
                  .on_trimmed = on_trimmed},
        .on_news = on_news,
    };
    memset(told.answered, 0, sizeof told.answered);
    told.news = 0;
    copier = wal_copier_start(&options);
    pthread_mutex_lock(&told.lock);
    while (told.news == 0)
        wait_more();
    enum sh_error state = told.state;
    pthread_mutex_unlock(&told.lock);
    assert_int_equal(state, expected);
}

static void stop(void)
{
    wal_copier_stop(copier);
    wal_copier_free(copier);
    copier = NULL;
}

static int setup(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR + 1);
    origin_make(&origin, 120, 7);
    disk = holder_disk(&dir);
    fs = dir.fs;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (copier != NULL)
        stop();
    sim_disk_close(disk);
    origin_free(&origin);
    return 0;
}

/* Puts units of the origin, by the number of the first of them. */
static enum sh_error put(size_t first, size_t behind, uint64_t session, uint64_t number)
{
    const struct msg_copy_append m = {.log = origin.log,
                                      .position = origin.units[first].begin,
                                      .bytes = origin_bytes(&origin, first, behind)};
    return wal_copier_put(copier, (struct link_token){session, number}, &m);
}

static struct wal_refusal wait_for(uint64_t number)
{
    pthread_mutex_lock(&told.lock);
    while (!told.answered[number])
        wait_more();
    struct wal_refusal answer = told.answers[number];
    pthread_mutex_unlock(&told.lock);
    return answer;
}

static void wait_for_state(enum sh_error state)
{
    pthread_mutex_lock(&told.lock);
    while (told.state != state)
        wait_more();
    pthread_mutex_unlock(&told.lock);
}

/* The copy as the next start finds it; the copier has stopped. */
static void check_files(uint64_t end)
{
    static struct copy_rig rig;
    assert_int_equal(copy_rig_open(&rig, fs, data, origin.log, ORIGIN_SEGMENT), SH_OK);
    assert_int_equal(rig.files.durable.end, end);
    copy_rig_check(&rig, &origin);
    assert_int_equal(copy_rig_ranges(&rig), 0);
    copy_rig_close(&rig);
}

static struct log_mark read_mark(void)
{
    struct log_mark mark = {0};
    enum sh_error error = log_mark_read(fs, wal_copier_store(copier)->path, origin.log, &mark);
    assert_true(error == SH_OK || error == SH_NOT_FOUND);
    return mark;
}

/* ---------------------------------------------------------------- tests */

static void test_everything_is_answered_once_it_is_durable(void **state)
{
    (void)state;
    start(SH_OK);
    for (size_t i = 0; i < origin.count; i++)
        assert_int_equal(put(i, i + 1, 1, i + 1), SH_OK);
    for (size_t i = 0; i < origin.count; i++)
        assert_int_equal(wait_for(i + 1).code, SH_OK);
    assert_int_equal(told.durable.end, origin.bytes.len);
    assert_int_equal(told.first_lsn, 1);
    stop();
    sim_disk_crash(disk, SIM_LOSE_ALL, 1);
    check_files(origin.bytes.len);
}

static void test_what_was_answered_is_there_after_a_loss_of_power(void **state)
{
    (void)state;
    start(SH_OK);
    assert_int_equal(put(0, 3, 1, 1), SH_OK);
    assert_int_equal(wait_for(1).code, SH_OK);
    uint64_t end = told.durable.end;
    stop();
    sim_disk_crash(disk, SIM_LOSE_ALL, 1);
    start(SH_OK);
    assert_int_equal(told.durable.end, end);
    assert_int_equal(put(3, 4, 1, 1), SH_OK);
    assert_int_equal(wait_for(1).code, SH_OK);
}

static void test_what_is_wrong_is_answered_and_does_not_stop_the_rest(void **state)
{
    (void)state;
    start(SH_OK);
    assert_int_equal(put(0, 2, 1, 1), SH_OK);
    assert_int_equal(put(3, 4, 1, 2), SH_OK); /* a gap */
    assert_int_equal(put(0, 1, 1, 3), SH_OK); /* there already */
    assert_int_equal(put(2, 4, 1, 4), SH_OK);
    assert_int_equal(wait_for(1).code, SH_OK);
    struct wal_refusal gap = wait_for(2);
    assert_int_equal(gap.code, SH_CONFLICT);
    assert_int_equal(gap.expected, origin.units[2].begin);
    assert_int_equal(wait_for(3).code, SH_OK);
    assert_int_equal(wait_for(4).code, SH_OK);
    stop();
    check_files(origin.units[3].end);
}

static size_t second_segment(void)
{
    size_t unit = 1;
    while (!origin.units[unit].opens_segment)
        unit++;
    return unit;
}

/* Asks again until it is taken: the preparer tries each second. */
static void put_until_taken(size_t unit)
{
    const int64_t until = clock_mono_ns() + PATIENCE_S * NS_PER_S;
    struct wal_refusal answer;
    do {
        pthread_mutex_lock(&told.lock);
        told.answered[1] = false;
        pthread_mutex_unlock(&told.lock);
        assert_int_equal(put(unit, unit + 1, 1, 1), SH_OK);
        answer = wait_for(1);
        assert_true(answer.code == SH_OK || answer.code == SH_DISK_FULL);
        assert_true(clock_mono_ns() < until);
    } while (answer.code != SH_OK);
}

static void test_a_full_disk_is_said_and_the_copy_goes_on_by_itself(void **state)
{
    size_t second = second_segment();
    (void)state;
    sim_disk_set_full(disk, true);
    start(SH_OK);
    assert_int_equal(put(0, 1, 1, 1), SH_OK);
    assert_int_equal(wait_for(1).code, SH_DISK_FULL);
    assert_int_equal(told.durable.end, 0);
    sim_disk_set_full(disk, false);
    for (size_t i = 0; i < second - 1; i++)
        put_until_taken(i);
    const int64_t until = clock_mono_ns() + PATIENCE_S * NS_PER_S;
    sim_disk_set_full(disk, true); /* there is a next segment, or else there is none yet */
    put_until_taken(second - 1);
    struct wal_refusal answer = {0};
    for (size_t i = second, number = 2; answer.code == SH_OK; i++, number++) {
        assert_true(clock_mono_ns() < until && i < origin.count);
        assert_int_equal(put(i, i + 1, 1, number), SH_OK);
        answer = wait_for(number);
    }
    assert_int_equal(answer.code, SH_DISK_FULL);
    uint64_t end = told.durable.end;
    assert_true(origin.units[origin_find(&origin, end)].opens_segment); /* what was prepared was used up */
    sim_disk_set_full(disk, false);
    put_until_taken(origin_find(&origin, end));
    end = told.durable.end;
    stop();
    check_files(end);
}

static void test_requests_of_a_session_that_goes_are_forgotten(void **state)
{
    static uint8_t lent[64 << 10];
    (void)state;
    start(SH_OK);
    for (unsigned round = 0; round < 20; round++) {
        uint64_t end;
        size_t first, behind;
        pthread_mutex_lock(&told.lock);
        end = told.durable.end;
        pthread_mutex_unlock(&told.lock);
        first = origin_find(&origin, end);
        behind = origin_cut(&origin, first, 3);
        struct slice bytes = origin_bytes(&origin, first, behind);
        memcpy(lent, bytes.data, bytes.len);
        const struct msg_copy_append m = {
            .log = origin.log, .position = origin.units[first].begin, .bytes = slice_of(lent, bytes.len)};
        assert_int_equal(wal_copier_put(copier, (struct link_token){2, 1}, &m), SH_OK);
        wal_copier_detach(copier, 2);
        memset(lent, 0xee, sizeof lent); /* nobody looks at it any more */
        pthread_mutex_lock(&told.lock);
        told.answered[1] = false;
        pthread_mutex_unlock(&told.lock);
        assert_int_equal(put(first, behind, 1, 100 + round), SH_OK);
        assert_int_equal(wait_for(100 + round).code, SH_OK);
    }
    uint64_t end = told.durable.end;
    stop();
    check_files(end);
}

/* A sync that takes until it is let go, or for ever, as far as a test is concerned. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool holds, is_held;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};

static int held_fdatasync(const struct vfs *vfs, int fd)
{
    struct timespec due;
    (void)vfs;
    clock_gettime(CLOCK_REALTIME, &due);
    due.tv_sec += HELD_S;
    pthread_mutex_lock(&gate.lock);
    gate.is_held = gate.holds;
    pthread_cond_broadcast(&gate.moved);
    while (gate.holds && pthread_cond_timedwait(&gate.moved, &gate.lock, &due) == 0)
        continue;
    gate.holds = gate.is_held = false;
    pthread_mutex_unlock(&gate.lock);
    const struct vfs *real = sim_disk_vfs(disk);
    return real->fdatasync(real, fd);
}

static void test_a_session_that_sent_nothing_goes_during_a_sync(void **state)
{
    static struct vfs held;
    (void)state;
    held = *fs;
    held.fdatasync = held_fdatasync;
    dir.fs = &held;
    start(SH_OK);
    assert_int_equal(put(0, 1, 1, 1), SH_OK);
    assert_int_equal(wait_for(1).code, SH_OK);
    pthread_mutex_lock(&gate.lock);
    gate.holds = true;
    pthread_mutex_unlock(&gate.lock);
    assert_int_equal(put(1, 2, 1, 2), SH_OK);
    pthread_mutex_lock(&gate.lock);
    while (gate.holds && !gate.is_held)
        pthread_cond_wait(&gate.moved, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
    wal_copier_detach(copier, 2);
    pthread_mutex_lock(&gate.lock);
    bool still = gate.is_held;
    gate.holds = false;
    pthread_cond_broadcast(&gate.moved);
    pthread_mutex_unlock(&gate.lock);
    assert_true(still);
    assert_int_equal(wait_for(2).code, SH_OK);
}

/* The copier's time: what a slow disk takes passes without waiting for it. */
static _Atomic int64_t ahead_ns;
int64_t __real_clock_mono_ns(void);
int64_t __wrap_clock_mono_ns(void);

int64_t __wrap_clock_mono_ns(void)
{
    return __real_clock_mono_ns() + ahead_ns;
}

static int slow_fdatasync(const struct vfs *vfs, int fd)
{
    ahead_ns += SLOW_NS;
    const struct vfs *real = sim_disk_vfs(disk);
    (void)vfs;
    return real->fdatasync(real, fd);
}

/* A copy that is never idle for as long as 100 ms writes its mark all the same. */
static void test_a_busy_copy_writes_its_mark(void **state)
{
    static struct vfs slow;
    (void)state;
    slow = *fs;
    slow.fdatasync = slow_fdatasync;
    dir.fs = &slow;
    start(SH_OK);
    assert_int_equal(put(0, 1, 1, 1), SH_OK);
    assert_int_equal(wait_for(1).code, SH_OK);
    uint64_t begin = read_mark().durable_end;
    assert_int_equal(begin, origin.units[0].end); /* by the roll */
    for (size_t i = 1; read_mark().durable_end == begin; i++) {
        assert_false(origin.units[i].opens_segment);
        assert_int_equal(put(i, i + 1, 1, i + 1), SH_OK);
        assert_int_equal(wait_for(i + 1).code, SH_OK);
    }
    stop();
    ahead_ns = 0;
}

static void test_an_idle_copy_writes_its_mark(void **state)
{
    (void)state;
    start(SH_OK);
    assert_int_equal(put(0, 1, 1, 1), SH_OK);
    assert_int_equal(put(1, 3, 1, 2), SH_OK);
    assert_int_equal(wait_for(2).code, SH_OK);
    int64_t until = clock_mono_ns() + PATIENCE_S * NS_PER_S;
    while (read_mark().durable_end != origin.units[2].end)
        assert_true(clock_mono_ns() < until);
}

/* ---- frames of another chain ---- */

static struct origin other;
static struct log_chain fork_at;

/* The copy holds all of one chain; `other` is the one that comes. */
static void begin_fork(bool is_own)
{
    const struct origin_fork how = {.common = 30, .tail_a = 60, .tail_b = 50, .seed = 7};
    origin_free(&origin);
    origin_make_two(&origin, &other, &how, &fork_at, NULL);
    if (is_own)
        dir.identity.log = origin.log;
    start(SH_OK);
    for (size_t i = 0; i < origin.count; i++) {
        assert_int_equal(put(i, i + 1, 1, i + 1), SH_OK);
        assert_int_equal(wait_for(i + 1).code, SH_OK);
    }
    memset(told.answered, 0, sizeof told.answered);
}

static uint32_t checksum_behind_fork(const struct origin *o)
{
    struct frame_header h;
    size_t unit = origin_find(o, fork_at.position);
    uint64_t at = fork_at.position + (o->units[unit].opens_segment ? SEGMENT_HEADER_BYTES : 0);
    assert_int_equal(
        frame_header_decode(slice_of(o->bytes.data + at, FRAME_HEADER_BYTES), FRAME_BYTES_MAX, &h), SH_OK);
    return h.checksum;
}

/* Brings a message of the chain that holds the fork, `over` what stands there. */
static struct wal_refusal put_over(const struct origin *chain, uint64_t number, struct slice given_up)
{
    size_t unit = 0;
    for (size_t i = 0; i < chain->count && chain->units[i].begin < fork_at.position; i++)
        if (chain->units[i].opens_segment)
            unit = i;
    const struct msg_copy_append m = {.log = chain->log,
                                      .position = chain->units[unit].begin,
                                      .bytes = origin_bytes(chain, unit, origin_cut(chain, unit, 100)),
                                      .over = true,
                                      .given_up = given_up};
    assert_int_equal(wal_copier_put(copier, (struct link_token){1, number}, &m), SH_OK);
    return wait_for(number);
}

/* The other chain, to its end, in pieces that begin where the copy ends. While the disk was full the preparer
 * may have seen that, too: then a piece is brought again until it has tried once more. */
static void bring_rest(bool was_full)
{
    const int64_t until = clock_mono_ns() + PATIENCE_S * NS_PER_S;
    uint64_t end;
    while ((end = told.durable.end) < other.bytes.len) {
        size_t unit = origin_find(&other, end);
        const struct msg_copy_append m = {.log = other.log,
                                          .position = end,
                                          .bytes = origin_bytes(&other, unit, origin_cut(&other, unit, 7)),
                                          .over = true};
        told.answered[100] = false;
        assert_int_equal(wal_copier_put(copier, (struct link_token){1, 100}, &m), SH_OK);
        enum sh_error code = wait_for(100).code;
        assert_true(code == SH_OK || (was_full && code == SH_DISK_FULL && clock_mono_ns() < until));
    }
}

static void check_other(void)
{
    struct origin held = origin;
    uint64_t end = told.durable.end;
    stop();
    sim_disk_crash(disk, SIM_LOSE_ALL, 1);
    origin = other;
    check_files(end);
    origin = held;
}

static struct slice list_of(struct buf *list, const uint32_t *sums, uint32_t count)
{
    msgpack_packer pk;
    list->len = 0;
    mp_packer(&pk, list);
    msgpack_pack_array(&pk, count);
    for (uint32_t i = 0; i < count; i++)
        msgpack_pack_uint32(&pk, sums[i]);
    return buf_slice(list);
}

static void test_a_copy_takes_other_frames_for_those_only_that_its_node_gave_up(void **state)
{
    struct buf list = {0};
    (void)state;
    begin_fork(false);
    uint64_t end = told.durable.end;
    uint32_t sums[17] = {1, checksum_behind_fork(&other), 3};
    assert_int_equal(put_over(&other, 1, (struct slice){0}).code, SH_CONFLICT);
    assert_int_equal(told.answers[1].expected, end);
    assert_int_equal(put_over(&other, 2, list_of(&list, sums, 3)).code, SH_CONFLICT);
    sums[16] = checksum_behind_fork(&origin);
    assert_int_equal(put_over(&other, 3, list_of(&list, sums, 17)).code, SH_BAD_REQUEST);
    assert_int_equal(put_over(&other, 4, slice_str("\x91\xc0")).code, SH_BAD_REQUEST);
    assert_int_equal(told.durable.end, end);
    sums[15] = sums[16];
    assert_int_equal(put_over(&other, 5, list_of(&list, sums, 16)).code, SH_OK);
    assert_true(told.durable.end > fork_at.position);
    bring_rest(false);
    check_other();
    origin_free(&other);
    buf_free(&list);
}

static void test_the_own_log_takes_other_frames_but_none_that_it_gave_up(void **state)
{
    (void)state;
    begin_fork(true);
    assert_int_equal(told.given_up.count, 0);
    assert_int_equal(put_over(&other, 1, (struct slice){0}).code, SH_OK);
    assert_int_equal(told.given_up.count, 1);
    assert_int_equal(told.given_up.all[0].position, fork_at.position);
    assert_int_equal(told.given_up.all[0].checksum, checksum_behind_fork(&origin));
    bring_rest(false);
    uint64_t end = told.durable.end;
    assert_int_equal(put_over(&origin, 2, (struct slice){0}).code, SH_CONFLICT);
    assert_int_equal(told.durable.end, end);
    stop();
    start(SH_OK);
    assert_int_equal(told.given_up.count, 1); /* it is remembered */
    assert_int_equal(put_over(&origin, 3, (struct slice){0}).code, SH_CONFLICT);
    check_other();
    origin_free(&other);
}

static void test_what_goes_waits_for_room_to_be_kept(void **state)
{
    (void)state;
    begin_fork(true);
    uint64_t end = told.durable.end;
    sim_disk_set_full(disk, true);
    assert_int_equal(put_over(&other, 1, (struct slice){0}).code, SH_DISK_FULL);
    assert_int_equal(told.durable.end, end);
    sim_disk_set_full(disk, false);
    assert_int_equal(put_over(&other, 2, (struct slice){0}).code, SH_OK);
    bring_rest(true);
    check_other();
    origin_free(&other);
}

/* Somebody has put files together that are not of one copy. */
static void test_a_copy_whose_mark_contradicts_its_segments_is_not_served(void **state)
{
    const struct log_mark wrong = {.log = origin.log, .counter = 1000, .durable_end = UINT64_C(1) << 40};
    size_t later = second_segment();
    uint8_t slots[2 * MARK_SLOT_BYTES];
    const struct msg_copy_append m = {.log = origin.log,
                                      .position = origin.units[later].begin,
                                      .bytes = origin_bytes(&origin, later, later + 2),
                                      .anew = true};
    (void)state;
    start(SH_OK);
    assert_int_equal(wal_copier_put(copier, (struct link_token){1, 1}, &m), SH_OK);
    assert_int_equal(wait_for(1).code, SH_OK);
    char path[PATH_MAX];
    vfs_path(path, "/holder/log", strrchr(wal_copier_store(copier)->path, '/') + 1);
    stop();
    log_mark_encode(&wrong, slots);
    memcpy(slots + MARK_SLOT_BYTES, slots, MARK_SLOT_BYTES);
    assert_int_equal(vfs_replace_file(fs, path, "mark", slots, sizeof slots), 0);
    start(SH_CORRUPT);
    assert_int_equal(put(0, 1, 1, 1), SH_CORRUPT);
}

/* What is torn can't be kept aside, so it isn't cut, and the copy waits for room. */
static void test_a_copy_that_finds_the_disk_full_opens_later(void **state)
{
    static struct copy_rig rig;
    static const uint8_t noise[5000] = {1};
    char path[PATH_MAX];
    (void)state;
    assert_int_equal(copy_rig_open(&rig, fs, data, origin.log, ORIGIN_SEGMENT), SH_OK);
    bool good;
    copy_rig_append(&rig, 0, origin_bytes(&origin, 0, 3), false, &good);
    assert_true(good && copy_rig_mark(&rig));
    vfs_path(path, rig.path, "00000000000000000001.seg");
    int fd = fs->open(fs, path, O_RDWR, 0);
    assert_int_equal(vfs_write_all(fs, fd, noise, sizeof noise, (int64_t)rig.files.offset), 0);
    fs->close(fs, fd);
    copy_rig_close(&rig);
    sim_disk_set_full(disk, true);
    start(SH_DISK_FULL);
    assert_int_equal(put(3, 4, 1, 1), SH_DISK_FULL);
    sim_disk_set_full(disk, false);
    wait_for_state(SH_OK);
    assert_int_equal(put(3, 4, 1, 1), SH_OK);
    assert_int_equal(wait_for(1).code, SH_OK);
    stop();
    check_files(origin.units[3].end);
}

/* The copy is not given up for it until walsvc is started anew. */
static void test_a_copy_that_meets_a_failed_call_opens_later(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) { /* a new one, and one that is there */
        sim_disk_stop_after(disk, 0);
        start(SH_INTERNAL);
        assert_int_equal(put(0, 1, 1, 1), SH_INTERNAL);
        sim_disk_stop_after(disk, UINT64_MAX / 2);
        wait_for_state(SH_OK);
        assert_int_equal(put(2 * i, 2 * i + 2, 1, 1), SH_OK);
        assert_int_equal(wait_for(1).code, SH_OK);
        stop();
    }
    check_files(origin.units[3].end);
}

static void test_anew_with_threads(void **state)
{
    size_t later = second_segment();
    (void)state;
    start(SH_OK);
    assert_int_equal(put(0, 4, 1, 1), SH_OK);
    assert_int_equal(wait_for(1).code, SH_OK);
    const struct msg_copy_append m = {.log = origin.log,
                                      .position = origin.units[later].begin,
                                      .bytes = origin_bytes(&origin, later, later + 2),
                                      .anew = true};
    assert_int_equal(wal_copier_put(copier, (struct link_token){1, 2}, &m), SH_OK);
    assert_int_equal(wait_for(2).code, SH_OK);
    assert_int_equal(told.first_lsn, origin.units[later].base_lsn);
    assert_int_equal(put(later + 2, later + 3, 1, 3), SH_OK);
    assert_int_equal(wait_for(3).code, SH_OK);
    stop();
    check_files(origin.units[later + 2].end);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_everything_is_answered_once_it_is_durable),
        CASE(test_what_was_answered_is_there_after_a_loss_of_power),
        CASE(test_what_is_wrong_is_answered_and_does_not_stop_the_rest),
        CASE(test_a_full_disk_is_said_and_the_copy_goes_on_by_itself),
        CASE(test_requests_of_a_session_that_goes_are_forgotten),
        CASE(test_a_session_that_sent_nothing_goes_during_a_sync),
        CASE(test_a_busy_copy_writes_its_mark),
        CASE(test_an_idle_copy_writes_its_mark),
        CASE(test_a_copy_whose_mark_contradicts_its_segments_is_not_served),
        CASE(test_a_copy_that_finds_the_disk_full_opens_later),
        CASE(test_a_copy_that_meets_a_failed_call_opens_later),
        CASE(test_anew_with_threads),
        CASE(test_a_copy_takes_other_frames_for_those_only_that_its_node_gave_up),
        CASE(test_the_own_log_takes_other_frames_but_none_that_it_gave_up),
        CASE(test_what_goes_waits_for_room_to_be_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
