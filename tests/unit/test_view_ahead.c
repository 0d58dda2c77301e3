/* A view that came from a member may be ahead of the node's own log, which is then waited for; one that is
 * ahead otherwise is of a log that was set back, and made again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "view.h"
#include "view_stream.h"
#include "wal_rig.h"

enum { WAIT_S = 60 };

static struct wal_rig rig;
static char data[PATH_MAX];
static struct view *view;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static const struct view_store_options small = {.cache_bytes = 1 << 20, .write_buffer_bytes = 1 << 20};

static void on_change(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&lock);
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
}

static void on_work(void *arg, struct view_work *work)
{
    (void)work;
    on_change(arg);
}

/* ---- the log: one addition of 1 to a counter at each LSN ---- */

static void append(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct buf body = {0};
        msgpack_packer pk;
        mp_packer(&pk, &body);
        msgpack_pack_array(&pk, 1);
        entry_pack(&pk, &(struct entry){.kind = ENTRY_ADD, .key = slice_str("n"), .delta = 1});
        rig_append_body(&rig, 0, 1, 0, buf_slice(&body));
        assert_true(rig_commit(&rig));
        buf_free(&body);
    }
}

static void tell(void)
{
    const struct view_log log = {rig.dir.identity.log, rig.log.durable.end, rig.log.durable.lsn};
    view_tell(view, &log, 1);
}

/* ---- the view ---- */

/* What a member's checkpoint leaves: nothing but the place matters here. */
static void write_place(uint64_t lsn, uint32_t checksum, bool ahead)
{
    char dir[PATH_MAX], error[VIEW_ERROR_MAX];
    struct view_vector vector = {.count = 1};
    vector.all[0] = (struct view_place){
        .log = rig.dir.identity.log, .lsn = lsn, .hlc = 1, .checksum = checksum, .ahead = ahead};
    vfs_path(dir, data, "view");
    struct view_store *store = view_store_open(dir, &small, error);
    assert_non_null(store);
    view_vector_store(store, &vector);
    assert_true(view_store_write(store, error));
    view_store_close(store);
}

static void open_view(void)
{
    struct view_options options = {
        .fs = vfs_posix(), .store = small, .on_change = on_change, .on_work = on_work};
    memcpy(options.data, data, sizeof options.data);
    view = view_open(&options);
    tell();
}

static int64_t counter(void)
{
    char error[VIEW_ERROR_MAX];
    struct buf row = {0};
    int64_t total = 0;
    struct view_store *store = view_begin_read(view);
    if (store != NULL && view_store_get(store, slice_str("Cn"), &row, error) == VIEW_FOUND)
        assert_true(view_counter_total(buf_slice(&row), &total));
    if (store != NULL)
        view_end_read(view);
    buf_free(&row);
    return total;
}

static uint64_t applied(void)
{
    struct view_state *state = xcalloc(1, sizeof *state);
    view_look(view, state);
    const struct view_place *place = view_place_of(&state->applied, rig.dir.identity.log);
    uint64_t lsn = state->opened && place != NULL ? place->lsn : 0;
    free(state);
    return lsn;
}

static void wait_applied(uint64_t lsn)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    pthread_mutex_lock(&lock);
    int result = 0;
    while (applied() != lsn && result != ETIMEDOUT)
        result = pthread_cond_timedwait(&changed, &lock, &until);
    pthread_mutex_unlock(&lock);
    assert_int_equal(applied(), lsn);
}

/* A step of the thread has begun after all that was told before. */
static void do_nothing(struct view_work *work, struct view_access *access)
{
    (void)access;
    pthread_mutex_lock(&lock);
    *(bool *)work->arg = true;
    pthread_mutex_unlock(&lock);
}

static void wait_step(void)
{
    bool done = false;
    struct view_work *work = xcalloc(2, sizeof *work);
    for (size_t i = 0; i < 2; i++) { /* between the two there is a step */
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += WAIT_S;
        done = false;
        work[i] = (struct view_work){.fn = do_nothing, .arg = &done};
        tell();
        view_ask(view, &work[i]);
        pthread_mutex_lock(&lock);
        while (!done && pthread_cond_timedwait(&changed, &lock, &until) != ETIMEDOUT)
            ;
        pthread_mutex_unlock(&lock);
        assert_true(done);
    }
    free(work);
}

static int setup(void **state)
{
    (void)state;
    rig_make_dir(data);
    assert_int_equal(rig_open(&rig, vfs_posix(), data, 4 << 20), EXIT_DONE);
    assert_true(rig_prepare(&rig));
    append(5);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    view_close(view);
    rig_kill(&rig);
    rig_remove_dir(data);
    return 0;
}

static void test_a_log_that_was_set_back_has_its_view_made_again(void **state)
{
    (void)state;
    write_place(8, 1, false);
    open_view();
    wait_applied(5);
    assert_int_equal(counter(), 5);
}

static void test_a_log_that_is_still_to_come_is_waited_for(void **state)
{
    (void)state;
    write_place(8, 0, true);
    open_view();
    wait_step();
    assert_int_equal(applied(), 8);
    append(5);
    tell();
    wait_applied(10);
    assert_int_equal(counter(), 2); /* the two behind: the first eight are in rows that came */
}

static void test_a_log_that_comes_proves_itself(void **state)
{
    (void)state;
    write_place(8, 1, true);
    open_view();
    wait_step();
    assert_int_equal(applied(), 8);
    append(5); /* with another frame at LSN 8 */
    tell();
    wait_applied(10);
    assert_int_equal(counter(), 10);
}

/* Rows of one event, of a log that there is no copy of yet. */
static void write_event(struct id16 log)
{
    char dir[PATH_MAX], error[VIEW_ERROR_MAX];
    struct view_vector vector = {.count = 1};
    struct buf key = {0}, row = {0};
    const struct view_run run = {.lsn = 8, .count = 1, .hlc = 1};
    const struct view_part part = {.log = log, .lsn = 8, .hlc = 1, .count = 1};
    vector.all[0] = (struct view_place){.log = log, .lsn = 8, .hlc = 1, .checksum = 1, .ahead = true};
    vfs_path(dir, data, "view");
    struct view_store *store = view_store_open(dir, &small, error);
    assert_non_null(store);
    view_run_key(slice_str("s"), log, run.lsn, &key);
    view_run_encode(&run, &row);
    view_store_put(store, buf_slice(&key), buf_slice(&row));
    row.len = 0;
    view_summary_encode(&part, 1, &row);
    view_store_put(store, slice_str("Ss"), buf_slice(&row));
    view_vector_store(store, &vector);
    assert_true(view_store_write(store, error));
    view_store_close(store);
    buf_free(&key);
    buf_free(&row);
}

static bool has_event(struct id16 log)
{
    char error[VIEW_ERROR_MAX];
    struct buf key = {0}, row = {0};
    struct view_store *store = view_begin_read(view);
    assert_non_null(store);
    view_run_key(slice_str("s"), log, 8, &key);
    bool has = view_store_get(store, buf_slice(&key), &row, error) == VIEW_FOUND;
    view_end_read(view);
    buf_free(&key);
    buf_free(&row);
    return has;
}

static void test_events_of_a_log_that_is_about_to_come_stay(void **state)
{
    (void)state;
    static const struct id16 other = {{1}};
    write_event(other);
    open_view();
    wait_applied(5);
    wait_step();
    assert_true(has_event(other));
}

/* Work that is done on the view's thread, one after the other. */
static void ask(struct view_work *work, void (*fn)(struct view_work *work, struct view_access *access),
                void *arg)
{
    *work = (struct view_work){.fn = fn, .arg = arg};
    view_ask(view, work);
}

static void await_rows(struct view_work *work, struct view_access *access)
{
    access->imports = true;
    access->awaits = work->arg;
}

/* Up to LSN 8; what is behind comes only then. */
static void test_what_comes_as_rows_is_not_applied_meanwhile(void **state)
{
    (void)state;
    struct view_vector awaited = {.count = 1};
    struct view_work work;
    awaited.all[0] = (struct view_place){.log = rig.dir.identity.log, .lsn = 8};
    open_view();
    wait_applied(5);
    ask(&work, await_rows, &awaited);
    wait_step();
    append(5);
    tell();
    wait_step();
    assert_int_equal(applied(), 5);
    view_import_over(view); /* it came to nothing */
    wait_applied(10);
    assert_int_equal(counter(), 10);
    ask(&work, await_rows, &awaited);
    wait_step();
    append(1);
    tell();
    wait_applied(11); /* there was more here */
}

static void take_place(struct view_work *work, struct view_access *access)
{
    *view_place_add(access->applied, rig.dir.identity.log) = *(struct view_place *)work->arg;
    access->installed = true;
}

static void test_a_log_goes_on_behind_the_rows_that_came(void **state)
{
    (void)state;
    struct view_vector awaited = {.count = 1};
    struct view_work work;
    awaited.all[0] = (struct view_place){.log = rig.dir.identity.log, .lsn = 8, .ahead = true};
    open_view();
    wait_applied(5);
    ask(&work, await_rows, &awaited);
    append(5);
    tell();
    wait_step();
    assert_int_equal(counter(), 5);
    ask(&work, take_place, &awaited.all[0]);
    wait_applied(10);
    assert_int_equal(counter(), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_log_that_was_set_back_has_its_view_made_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_log_that_is_still_to_come_is_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_log_that_comes_proves_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(test_events_of_a_log_that_is_about_to_come_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_comes_as_rows_is_not_applied_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_log_goes_on_behind_the_rows_that_came, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
