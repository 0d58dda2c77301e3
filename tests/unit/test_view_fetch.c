/* Whom a view that lacks entries asks, and what it does when nobody answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "view_fetch.h"

enum { ID = 77 };

static struct id16 log_of(uint8_t number)
{
    struct id16 log = {{0}};
    log.bytes[15] = number;
    return log;
}

/* ---- a story: log 1 is applied up to 10, and trimmed before 50 ---- */

struct story {
    struct view_fetch f;
    int64_t now_ns;
    struct view_vector applied, theirs;
    struct fetch_need needs[2];
    struct id16 held[4];
    struct fetch_own own;
};

static void begin(struct story *s)
{
    *s = (struct story){.now_ns = 1000};
    view_fetch_init(&s->f);
    s->needs[0] = (struct fetch_need){.log = log_of(1), .applied = 10, .first = 50};
    s->needs[1] = (struct fetch_need){.log = log_of(2), .applied = 0, .first = 5};
    s->held[0] = log_of(1);
    s->held[1] = log_of(2);
    s->own = (struct fetch_own){
        .needs = s->needs, .need_count = 1, .applied = &s->applied, .held = s->held, .held_count = 2};
}

static void look(struct story *s)
{
    view_fetch_look(&s->f, s->now_ns, &s->own, false);
}

static void expect(struct story *s, enum fetch_action_kind kind, const char *node)
{
    struct fetch_action action = view_fetch_next(&s->f);
    assert_int_equal(action.kind, kind);
    if (node != NULL)
        assert_string_equal(action.node, node);
    if (kind == FETCH_OPEN || kind == FETCH_ROWS || kind == FETCH_CLOSE)
        assert_int_equal(action.id, ID);
}

static void list(struct story *s, size_t count)
{
    static const char ids[3][FETCH_NODE_MAX + 1] = {"n2", "n3", "n4"};
    expect(s, FETCH_LIST, NULL);
    view_fetch_listed(&s->f, s->now_ns, ids, count, ID);
}

/* A member's view has so much of log 1. */
static void reaches(struct story *s, const char *node, uint64_t lsn)
{
    expect(s, FETCH_LOOK, node);
    s->theirs.count = 0;
    s->theirs.all[s->theirs.count++] = (struct view_place){.log = log_of(1), .lsn = lsn, .checksum = 1};
    view_fetch_looked(&s->f, s->now_ns, &s->theirs, &s->own);
}

static void fails(struct story *s, const char *why, bool is_gone)
{
    view_fetch_failed(&s->f, s->now_ns, why, is_gone);
}

static void done(struct story *s)
{
    view_fetch_done(&s->f, s->now_ns, 2);
}

/* n2's checkpoint is open, and its first piece asked for. */
static void open_n2(struct story *s)
{
    look(s);
    list(s, 1);
    reaches(s, "n2", 100);
    expect(s, FETCH_OPEN, "n2");
    done(s);
    expect(s, FETCH_BEGIN, NULL);
    done(s);
    expect(s, FETCH_ROWS, "n2");
}

static void wait_pause(struct story *s)
{
    expect(s, FETCH_NOTHING, NULL);
    assert_int_equal(s->f.state, FETCH_PAUSING);
    int64_t due_ns = view_fetch_due_ns(&s->f);
    assert_in_range(due_ns - s->now_ns, 1, 10 * NS_PER_S);
    look(s);
    expect(s, FETCH_NOTHING, NULL); /* not yet */
    s->now_ns = due_ns;
    look(s);
}

static void test_a_view_that_lacks_nothing_asks_nobody(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    s.own.need_count = 0;
    look(&s);
    expect(&s, FETCH_NOTHING, NULL);
    assert_true(view_fetch_due_ns(&s.f) == INT64_MAX);
}

static void test_rows_come_piece_by_piece_and_are_installed(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    open_n2(&s);
    done(&s);
    expect(&s, FETCH_STORE, NULL);
    view_fetch_stored(&s.f, s.now_ns, 1, 100, true);
    expect(&s, FETCH_ROWS, "n2");
    done(&s);
    expect(&s, FETCH_STORE, NULL);
    view_fetch_stored(&s.f, s.now_ns, 2, 200, false);
    assert_int_equal(s.f.rows, 2);
    assert_int_equal(s.f.bytes, 200);
    assert_int_equal(s.f.total, 2);
    expect(&s, FETCH_INSTALL, NULL);
    done(&s);
    expect(&s, FETCH_DROP, NULL);
    expect(&s, FETCH_NOTHING, NULL); /* n2 keeps what comes behind it, until this node does */
    s.own.need_count = 0;
    look(&s);
    expect(&s, FETCH_NOTHING, NULL);
    view_fetch_look(&s.f, s.now_ns, &s.own, true);
    expect(&s, FETCH_CLOSE, "n2");
    done(&s);
    assert_int_equal(s.f.state, FETCH_IDLE);
}

static void test_a_checkpoint_is_not_kept_for_ever(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    open_n2(&s);
    done(&s);
    expect(&s, FETCH_STORE, NULL);
    view_fetch_stored(&s.f, s.now_ns, 2, 200, false);
    expect(&s, FETCH_INSTALL, NULL);
    done(&s);
    expect(&s, FETCH_DROP, NULL);
    s.now_ns = view_fetch_due_ns(&s.f);
    look(&s);
    expect(&s, FETCH_CLOSE, "n2");
    fails(&s, "gone", true); /* that it cannot be closed is no harm */
    assert_int_equal(s.f.state, FETCH_IDLE);
}

static void test_who_has_most_of_what_is_lacking_is_asked(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    s.own.need_count = 2;
    look(&s);
    list(&s, 3);
    reaches(&s, "n2", 48); /* entry 49 would still be lacking */
    reaches(&s, "n3", 49);
    expect(&s, FETCH_LOOK, "n4");
    s.theirs.count = 0;
    s.theirs.all[s.theirs.count++] = (struct view_place){.log = log_of(1), .lsn = 60};
    s.theirs.all[s.theirs.count++] = (struct view_place){.log = log_of(2), .lsn = 4};
    view_fetch_looked(&s.f, s.now_ns, &s.theirs, &s.own);
    expect(&s, FETCH_OPEN, "n4");
}

static void test_nobody_can_help(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    look(&s);
    list(&s, 2);
    reaches(&s, "n2", 48);
    expect(&s, FETCH_LOOK, "n3");
    fails(&s, "cannot be reached", true);
    assert_non_null(strstr(s.f.lacks, "behind LSN 10 is trimmed before 50"));
    assert_non_null(strstr(s.f.lacks, "n2 has it up to 48"));
    assert_non_null(strstr(s.f.lacks, "n3: cannot be reached"));
    assert_non_null(strstr(s.f.lacks, "start a member whose view has it"));
    wait_pause(&s);
    list(&s, 2); /* for ever */
    reaches(&s, "n2", 48);
    reaches(&s, "n3", 80);
    expect(&s, FETCH_OPEN, "n3");
}

static void test_there_is_no_other_member(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    look(&s);
    list(&s, 0);
    assert_non_null(strstr(s.f.lacks, "there is no other member"));
    wait_pause(&s);
    expect(&s, FETCH_LIST, NULL);
    fails(&s, "replsvc does not say who is there", true);
    wait_pause(&s);
    expect(&s, FETCH_LIST, NULL);
}

static void test_it_is_over_when_the_entries_are_there_again(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    look(&s);
    list(&s, 0);
    s.own.need_count = 0;
    look(&s);
    expect(&s, FETCH_NOTHING, NULL);
    assert_int_equal(s.f.state, FETCH_IDLE);
    assert_string_equal(s.f.lacks, "");
}

/* A member that is lost in the middle, or lies: another one is asked, or it again. */
static void test_a_failure_begins_anew_with_another_member(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    open_n2(&s);
    done(&s);
    expect(&s, FETCH_STORE, NULL);
    fails(&s, "a piece's digest is another one", false);
    expect(&s, FETCH_DROP, NULL); /* what has come is of no use */
    expect(&s, FETCH_CLOSE, "n2");
    assert_non_null(strstr(s.f.lacks, "n2: a piece's digest is another one"));
    done(&s);
    wait_pause(&s);
    list(&s, 2);
    reaches(&s, "n2", 100);
    reaches(&s, "n3", 60);
    expect(&s, FETCH_OPEN, "n3");
    fails(&s, "overloaded", true);
    expect(&s, FETCH_DROP, NULL);
    wait_pause(&s);
    list(&s, 2);
    reaches(&s, "n2", 100);
    reaches(&s, "n3", 60);
    expect(&s, FETCH_OPEN, "n2");
}

static void test_each_step_may_fail(void **state)
{
    (void)state;
    for (unsigned step = 0; step < 5; step++) {
        struct story s;
        begin(&s);
        look(&s);
        list(&s, 1);
        reaches(&s, "n2", 100);
        expect(&s, FETCH_OPEN, "n2");
        for (unsigned i = 0; i < step; i++) {
            if (s.f.state == FETCH_STORING)
                view_fetch_stored(&s.f, s.now_ns, 1, 1, false);
            else
                done(&s);
            assert_int_not_equal(view_fetch_next(&s.f).kind, FETCH_NOTHING);
        }
        fails(&s, "lost", true);
        expect(&s, FETCH_DROP, NULL);
        wait_pause(&s);
        expect(&s, FETCH_LIST, NULL);
    }
}

static void test_a_transfer_that_never_ends_is_given_up(void **state)
{
    (void)state;
    struct story s;
    unsigned pieces = 0;
    begin(&s);
    open_n2(&s);
    while (s.f.state == FETCH_ASKING && pieces < 10000) {
        done(&s);
        expect(&s, FETCH_STORE, NULL);
        s.now_ns += 20 * NS_PER_S;
        view_fetch_stored(&s.f, s.now_ns, pieces, pieces, true);
        pieces++;
        if (s.f.state == FETCH_ASKING)
            expect(&s, FETCH_ROWS, "n2");
    }
    assert_in_range(pieces, 1000, 2000);
    expect(&s, FETCH_DROP, NULL);
    expect(&s, FETCH_CLOSE, "n2");
    assert_non_null(strstr(s.f.lacks, "it takes too long"));
}

static void test_pauses_grow_and_end(void **state)
{
    (void)state;
    struct story s;
    int64_t pause_ns = 0;
    begin(&s);
    look(&s);
    for (int i = 0; i < 40; i++) {
        list(&s, 0);
        int64_t next_ns = view_fetch_due_ns(&s.f) - s.now_ns;
        assert_true(next_ns >= pause_ns);
        pause_ns = next_ns;
        wait_pause(&s);
    }
    assert_int_equal(pause_ns, 10 * NS_PER_S);
}

/* ---- a view that was begun anew: perhaps there were logs that are nowhere any more ---- */

static void test_a_new_view_is_compared_once(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    s.own.need_count = 0;
    s.own.compares = true;
    look(&s);
    list(&s, 2);
    expect(&s, FETCH_LOOK, "n2");
    fails(&s, "cannot be reached", true);
    reaches(&s, "n3", 100); /* that log comes as a copy */
    expect(&s, FETCH_NOTE, NULL);
    done(&s);
    s.own.compares = false;
    look(&s);
    expect(&s, FETCH_NOTHING, NULL);
}

static void test_nobody_to_compare_with_yet(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    s.own.need_count = 0;
    s.own.compares = true;
    look(&s);
    list(&s, 0);
    assert_string_equal(s.f.lacks, "");
    wait_pause(&s);
    list(&s, 1);
    expect(&s, FETCH_LOOK, "n2");
    fails(&s, "cannot be reached", true);
    wait_pause(&s);
    list(&s, 1);
    reaches(&s, "n2", 1);
    expect(&s, FETCH_NOTE, NULL);
}

/* The log of a node that has just come is unknown for a moment; one that was dropped everywhere stays so. */
static void test_a_log_that_nobody_has_any_more(void **state)
{
    (void)state;
    struct story s;
    begin(&s);
    s.own.need_count = 0;
    s.own.compares = true;
    look(&s);
    for (int i = 0; i < 3; i++) {
        list(&s, 1);
        expect(&s, FETCH_LOOK, "n2");
        s.theirs.count = 0;
        s.theirs.all[s.theirs.count++] = (struct view_place){.log = log_of(9), .lsn = 5};
        view_fetch_looked(&s.f, s.now_ns, &s.theirs, &s.own);
        if (i < 2)
            wait_pause(&s);
    }
    expect(&s, FETCH_OPEN, "n2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_view_that_lacks_nothing_asks_nobody),
        cmocka_unit_test(test_rows_come_piece_by_piece_and_are_installed),
        cmocka_unit_test(test_a_checkpoint_is_not_kept_for_ever),
        cmocka_unit_test(test_who_has_most_of_what_is_lacking_is_asked),
        cmocka_unit_test(test_nobody_can_help),
        cmocka_unit_test(test_there_is_no_other_member),
        cmocka_unit_test(test_it_is_over_when_the_entries_are_there_again),
        cmocka_unit_test(test_a_failure_begins_anew_with_another_member),
        cmocka_unit_test(test_each_step_may_fail),
        cmocka_unit_test(test_a_transfer_that_never_ends_is_given_up),
        cmocka_unit_test(test_pauses_grow_and_end),
        cmocka_unit_test(test_a_new_view_is_compared_once),
        cmocka_unit_test(test_nobody_to_compare_with_yet),
        cmocka_unit_test(test_a_log_that_nobody_has_any_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
