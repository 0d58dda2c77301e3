/* The loop: timers, descriptors, hooks, mail from other threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "buf.h"
#include "clock.h"
#include "loop.h"

/* ---- timers ---- */

struct tick {
    struct loop *loop;
    struct loop_timer timer;
    unsigned *order, place;
    int64_t ran_ns;
};

static void on_tick(void *arg)
{
    struct tick *tick = arg;
    tick->place = ++*tick->order;
    tick->ran_ns = loop_now_ns(tick->loop);
}

static void run_until(struct loop *loop, const unsigned *counter, unsigned value)
{
    int64_t end = clock_mono_ns() + 60 * (int64_t)NS_PER_S;
    while (*counter < value && clock_mono_ns() < end)
        loop_step(loop, 100);
    assert_int_equal(*counter, value);
}

static void test_timers_run_in_order_of_their_time_and_not_early(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    struct loop *loop = loop_open();
    struct tick ticks[COUNT];
    unsigned order = 0;
    int64_t start = clock_mono_ns();
    for (unsigned i = 0; i < COUNT; i++) {
        ticks[i] = (struct tick){.loop = loop, .timer = {.fn = on_tick, .arg = &ticks[i]}, .order = &order};
        loop_timer_set(loop, &ticks[i].timer, start + (i * 79 % COUNT) * 20 * NS_PER_US);
    }
    run_until(loop, &order, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(ticks[i].place, i * 79 % COUNT + 1);
        assert_true(ticks[i].ran_ns >= ticks[i].timer.due_ns);
    }
    loop_close(loop);
}

static void test_a_cancelled_timer_does_not_run_and_a_moved_one_runs_once(void **state)
{
    (void)state;
    struct loop *loop = loop_open();
    unsigned order = 0;
    struct tick never = {.loop = loop, .order = &order}, moved = never, last = never;
    never.timer = (struct loop_timer){.fn = on_tick, .arg = &never};
    moved.timer = (struct loop_timer){.fn = on_tick, .arg = &moved};
    last.timer = (struct loop_timer){.fn = on_tick, .arg = &last};
    loop_timer_after(loop, &never.timer, NS_PER_MS);
    loop_timer_after(loop, &moved.timer, 60 * NS_PER_S);
    loop_timer_after(loop, &last.timer, 3 * NS_PER_MS);
    loop_timer_cancel(loop, &never.timer);
    loop_timer_cancel(loop, &never.timer);
    loop_timer_after(loop, &moved.timer, 2 * NS_PER_MS);
    run_until(loop, &order, 2);
    assert_int_equal(never.place, 0);
    assert_int_equal(moved.place, 1);
    assert_int_equal(last.place, 2);
    loop_close(loop);
}

struct eager {
    struct loop *loop;
    struct loop_timer timer;
    unsigned runs;
};

static void on_eager(void *arg)
{
    struct eager *eager = arg;
    eager->runs++;
    loop_timer_after(eager->loop, &eager->timer, 0);
}

static void test_a_timer_that_sets_itself_again_leaves_the_round(void **state)
{
    (void)state;
    struct loop *loop = loop_open();
    struct eager eager = {.loop = loop, .timer = {.fn = on_eager, .arg = &eager}};
    loop_timer_after(loop, &eager.timer, 0);
    for (unsigned round = 1; round <= 3; round++) {
        loop_step(loop, 1000);
        assert_int_equal(eager.runs, round);
    }
    loop_timer_cancel(loop, &eager.timer);
    loop_close(loop);
}

/* ---- descriptors ---- */

struct pair {
    struct loop *loop;
    struct loop_fd fd;
    struct pair *other;
    unsigned calls;
};

static void on_first_removes_both(void *arg, uint32_t events)
{
    struct pair *pair = arg;
    assert_true(events & EPOLLIN);
    pair->calls++;
    loop_fd_remove(pair->loop, &pair->fd);
    loop_fd_remove(pair->loop, &pair->other->fd);
}

static void test_a_descriptor_that_is_removed_in_its_round_is_not_called(void **state)
{
    (void)state;
    struct loop *loop = loop_open();
    int pipes[2][2];
    struct pair pairs[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pipe(pipes[i]), 0);
        assert_int_equal(write(pipes[i][1], "x", 1), 1);
        pairs[i] = (struct pair){.loop = loop, .other = &pairs[1 - i]};
        pairs[i].fd = (struct loop_fd){.fd = pipes[i][0], .fn = on_first_removes_both, .arg = &pairs[i]};
        loop_fd_add(loop, &pairs[i].fd, EPOLLIN);
    }
    loop_step(loop, 1000);
    loop_step(loop, 0);
    assert_int_equal(pairs[0].calls + pairs[1].calls, 1);
    for (int i = 0; i < 4; i++)
        close(pipes[i / 2][i % 2]);
    loop_close(loop);
}

/* ---- hooks ---- */

struct counted_hook {
    struct loop *loop;
    struct loop_hook hook;
    unsigned calls;
};

static void on_hook(void *arg)
{
    struct counted_hook *h = arg;
    h->calls++;
}

static void on_hook_once(void *arg)
{
    struct counted_hook *h = arg;
    h->calls++;
    loop_hook_remove(h->loop, &h->hook);
}

static void test_hooks_run_once_a_round_and_may_remove_themselves(void **state)
{
    (void)state;
    struct loop *loop = loop_open();
    struct counted_hook hooks[3] = {0};
    for (int i = 0; i < 3; i++) {
        hooks[i].loop = loop;
        hooks[i].hook = (struct loop_hook){.fn = i == 1 ? on_hook_once : on_hook, .arg = &hooks[i]};
        loop_hook_add(loop, &hooks[i].hook);
    }
    for (int i = 0; i < 3; i++)
        loop_step(loop, 0);
    assert_int_equal(hooks[0].calls, 3);
    assert_int_equal(hooks[1].calls, 1);
    assert_int_equal(hooks[2].calls, 3);
    loop_hook_remove(loop, &hooks[0].hook);
    loop_hook_remove(loop, &hooks[2].hook);
    loop_close(loop);
}

/* ---- mail ---- */

enum { SENDERS = 4, LETTERS = 20000 };

struct letter {
    struct mail mail;
    unsigned sender, number;
};

struct office {
    struct mailbox box;
    unsigned received, next[SENDERS];
};

static void on_letters(void *arg, struct mail *first)
{
    struct office *office = arg;
    for (struct mail *mail = first, *next; mail != NULL; mail = next) {
        struct letter *letter = (struct letter *)mail;
        next = mail->next;
        assert_int_equal(letter->number, office->next[letter->sender]++);
        office->received++;
        free(letter);
    }
}

struct sender {
    struct office *office;
    unsigned name;
    bool takes_turns;
};

static void *send_letters(void *arg)
{
    struct sender *sender = arg;
    for (unsigned i = 0; i < LETTERS; i++) {
        struct letter *letter = xcalloc(1, sizeof *letter);
        letter->sender = sender->name;
        letter->number = i;
        if (!sender->takes_turns)
            mailbox_put(&sender->office->box, &letter->mail);
        else if (mailbox_put_turn(&sender->office->box, &letter->mail))
            loop_turn(sender->office->box.loop);
    }
    return NULL;
}

static void send_from_many_threads(unsigned takers)
{
    struct loop *loop = loop_open();
    struct office office = {0};
    pthread_t threads[SENDERS];
    struct sender senders[SENDERS];
    mailbox_open(&office.box, loop, on_letters, &office);
    for (unsigned i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){&office, i, i < takers};
        assert_int_equal(pthread_create(&threads[i], NULL, send_letters, &senders[i]), 0);
    }
    run_until(loop, &office.received, SENDERS * LETTERS);
    for (unsigned i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    mailbox_close(&office.box);
    loop_close(loop);
}

static void test_mail_of_many_threads_arrives_completely_and_in_each_ones_order(void **state)
{
    (void)state;
    for (unsigned takers = 0; takers <= SENDERS; takers++)
        send_from_many_threads(takers);
}

/* A thread that brings mail until it has dealt with a piece of it itself. */
struct visitor {
    struct loop *loop;
    struct mailbox box;
    struct loop_timer timer;
    struct loop_hook hook;
    pthread_t thread;
    bool has_thread, has_visited, was_mine;
    unsigned hooks;
};

static void on_visit(void *arg, struct mail *first)
{
    struct visitor *v = arg;
    for (struct mail *next; first != NULL; first = next) {
        next = first->next;
        free(first);
    }
    v->was_mine = loop_is_mine(v->loop);
    if (v->has_visited || !v->has_thread || !pthread_equal(pthread_self(), v->thread))
        return;
    v->has_visited = true;
    loop_timer_after(v->loop, &v->timer, 0); /* the loop's thread has to wake up for this */
}

static void on_visitors_timer(void *arg)
{
    struct visitor *v = arg;
    assert_false(pthread_equal(pthread_self(), v->thread));
    loop_stop(v->loop);
}

static void count_hook(void *arg)
{
    ((struct visitor *)arg)->hooks++;
}

static void *visit(void *arg)
{
    struct visitor *v = arg;
    bool has_turn = false;
    for (int64_t end = clock_mono_ns() + 60 * (int64_t)NS_PER_S; !has_turn && clock_mono_ns() < end;) {
        has_turn = mailbox_put_turn(&v->box, xcalloc(1, sizeof(struct mail)));
        if (!has_turn)
            usleep(100); /* the loop's thread may be held up */
    }
    assert_true(has_turn);
    v->thread = pthread_self();
    v->has_thread = true;
    loop_turn(v->loop);
    assert_false(loop_is_mine(v->loop));
    return NULL;
}

static void test_a_thread_with_mail_takes_the_turn_of_a_loop_that_waits(void **state)
{
    (void)state;
    struct visitor v = {.loop = loop_open()};
    pthread_t thread;
    v.timer = (struct loop_timer){.fn = on_visitors_timer, .arg = &v};
    v.hook = (struct loop_hook){.fn = count_hook, .arg = &v};
    mailbox_open(&v.box, v.loop, on_visit, &v);
    loop_hook_add(v.loop, &v.hook);
    assert_int_equal(pthread_create(&thread, NULL, visit, &v), 0);
    loop_run(v.loop);
    pthread_join(thread, NULL);
    assert_true(v.has_visited && v.was_mine);
    assert_true(v.hooks >= 2); /* the visit's and the round's */
    loop_hook_remove(v.loop, &v.hook);
    mailbox_close(&v.box);
    loop_close(v.loop);
}

/* Letters that are sent again as soon as they were received: there is mail at any time. */
struct busy {
    struct office office; /* first */
    struct loop *loop;
    struct loop_timer timer;
    unsigned ticks;
    atomic_bool stop;
};

static void on_busy_mail(void *arg, struct mail *first)
{
    struct busy *busy = arg;
    for (struct mail *next; first != NULL; first = next) {
        next = first->next;
        free(first);
        if (!atomic_load(&busy->stop))
            assert_false(mailbox_put_turn(&busy->office.box, xcalloc(1, sizeof(struct mail))));
    }
}

static void on_busy_tick(void *arg)
{
    struct busy *busy = arg;
    if (++busy->ticks < 20) {
        loop_timer_after(busy->loop, &busy->timer, NS_PER_MS);
        return;
    }
    atomic_store(&busy->stop, true);
    loop_stop(busy->loop);
}

static void *bring_mail(void *arg)
{
    struct busy *busy = arg;
    if (mailbox_put_turn(&busy->office.box, xcalloc(1, sizeof(struct mail))))
        loop_turn(busy->loop);
    return NULL;
}

/* Whoever deals with mail that never ends: this would hang if the loop's own thread or another kept the turn.
 */
static void test_timers_run_while_there_is_always_mail(void **state)
{
    (void)state;
    struct busy busy = {.loop = loop_open()};
    pthread_t thread;
    busy.timer = (struct loop_timer){.fn = on_busy_tick, .arg = &busy};
    mailbox_open(&busy.office.box, busy.loop, on_busy_mail, &busy);
    loop_timer_after(busy.loop, &busy.timer, NS_PER_MS);
    assert_int_equal(pthread_create(&thread, NULL, bring_mail, &busy), 0);
    loop_run(busy.loop);
    pthread_join(thread, NULL);
    assert_int_equal(busy.ticks, 20);
    mailbox_close(&busy.office.box);
    loop_close(busy.loop);
}

static void test_mail_that_waits_is_delivered_when_the_box_closes(void **state)
{
    (void)state;
    struct loop *loop = loop_open();
    struct office office = {0};
    struct letter *letter = xcalloc(1, sizeof *letter);
    mailbox_open(&office.box, loop, on_letters, &office);
    mailbox_put(&office.box, &letter->mail);
    mailbox_close(&office.box);
    assert_int_equal(office.received, 1);
    loop_close(loop);
}

static void *stop_loop(void *arg)
{
    loop_stop(arg);
    return NULL;
}

static void test_the_loop_is_stopped_by_another_thread_and_can_run_again(void **state)
{
    (void)state;
    struct loop *loop = loop_open();
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, stop_loop, loop), 0);
        loop_run(loop);
        pthread_join(thread, NULL);
    }
    loop_close(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers_run_in_order_of_their_time_and_not_early),
        cmocka_unit_test(test_a_cancelled_timer_does_not_run_and_a_moved_one_runs_once),
        cmocka_unit_test(test_a_timer_that_sets_itself_again_leaves_the_round),
        cmocka_unit_test(test_a_descriptor_that_is_removed_in_its_round_is_not_called),
        cmocka_unit_test(test_hooks_run_once_a_round_and_may_remove_themselves),
        cmocka_unit_test(test_mail_of_many_threads_arrives_completely_and_in_each_ones_order),
        cmocka_unit_test(test_a_thread_with_mail_takes_the_turn_of_a_loop_that_waits),
        cmocka_unit_test(test_timers_run_while_there_is_always_mail),
        cmocka_unit_test(test_mail_that_waits_is_delivered_when_the_box_closes),
        cmocka_unit_test(test_the_loop_is_stopped_by_another_thread_and_can_run_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
