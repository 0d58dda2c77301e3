/* The loop: epoll for descriptors, a binary heap for timers, a list of hooks, mailboxes on eventfd.
 *
 * One round: wait, run ready descriptors, run timers that are due, run hooks. The turn is a semaphore, since
 * it is not always given back by the thread that took it. Fatal: a failure of epoll or eventfd, which can
 * only mean a fault in here or a process out of resources. */
#include "loop.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "buf.h"
#include "clock.h"
#include "log.h"

enum { LOOP_BATCH = 64 };

/* A watched descriptor. What epoll reports names slot and serial, since the descriptor may be removed by
 * another thread's turn, and its slot used again, before the loop has its turn back. */
struct watch {
    struct loop_fd *fd; /* NULL: free */
    uint32_t serial;
};

struct loop {
    sem_t turn;
    atomic_bool pending; /* mail has come for whoever has the turn */
    atomic_bool wanted;  /* the loop's thread waits for the turn: nobody goes before it */
    atomic_uint guests;  /* other threads that have had the turn and may still look at this */
    int epoll;
    int64_t now_ns;  /* of the round or turn; 0: in none */
    int64_t wake_ns; /* when the wait ends by itself; INT64_MAX: it doesn't */
    atomic_bool stopping;
    struct loop_fd stop_wake;
    struct watch *watches;
    unsigned watch_count;
    struct loop_timer **heap; /* heap[0] is due first; a timer's slot is its index + 1 */
    unsigned timer_count, timer_cap;
    struct loop_hook *hooks, *next_hook; /* next_hook: where the round goes on */
    struct mailbox *boxes, *next_box;
};

static _Noreturn void die(const char *what)
{
    log_error("the event loop failed", log_text("call", what), log_text("error", strerror(errno)));
    abort();
}

static int wake_fd_open(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        die("eventfd");
    return fd;
}

/* The counter is never read (the watch is edge-triggered) and would take centuries to fill. */
static void wake_fd_ring(int fd)
{
    const uint64_t one = 1;
    if (write(fd, &one, sizeof one) != (ssize_t)sizeof one)
        die("write to eventfd");
}

/* Whose turn this thread has. */
static _Thread_local struct loop *mine;

bool loop_is_mine(const struct loop *loop)
{
    return mine == loop;
}

static void ignore_event(void *arg, uint32_t events)
{
    (void)arg;
    (void)events;
}

struct loop *loop_open(void)
{
    struct loop *loop = xcalloc(1, sizeof *loop);
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll < 0)
        die("epoll_create1");
    sem_init(&loop->turn, 0, 0); /* taken */
    loop->stop_wake = (struct loop_fd){.fd = wake_fd_open(), .fn = ignore_event};
    loop_fd_add(loop, &loop->stop_wake, EPOLLIN | EPOLLET);
    return loop;
}

void loop_close(struct loop *loop)
{
    assert(loop->timer_count == 0);
    assert(loop->hooks == NULL);
    while (atomic_load(&loop->guests) > 0)
        sched_yield(); /* they have given the turn back, and are about to leave */
    loop_fd_remove(loop, &loop->stop_wake);
    close(loop->stop_wake.fd);
    close(loop->epoll);
    sem_destroy(&loop->turn);
    free(loop->watches);
    free(loop->heap);
    free(loop);
}

int64_t loop_now_ns(const struct loop *loop)
{
    return loop->now_ns != 0 ? loop->now_ns : clock_mono_ns();
}

/* ---- descriptors ---- */

static unsigned free_slot(struct loop *loop)
{
    unsigned slot = 0;
    while (slot < loop->watch_count && loop->watches[slot].fd != NULL)
        slot++;
    if (slot == loop->watch_count) {
        loop->watches = xrealloc(loop->watches, ++loop->watch_count * sizeof *loop->watches);
        loop->watches[slot] = (struct watch){0};
    }
    return slot;
}

void loop_fd_add(struct loop *loop, struct loop_fd *fd, uint32_t events)
{
    fd->slot = free_slot(loop);
    struct watch *watch = &loop->watches[fd->slot];
    watch->fd = fd;
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)++watch->serial << 32 | fd->slot};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd->fd, &event) != 0)
        die("epoll_ctl add");
}

void loop_fd_remove(struct loop *loop, struct loop_fd *fd)
{
    assert(loop->watches[fd->slot].fd == fd);
    if (epoll_ctl(loop->epoll, EPOLL_CTL_DEL, fd->fd, NULL) != 0)
        die("epoll_ctl del");
    loop->watches[fd->slot].fd = NULL;
}

static void run_event(struct loop *loop, const struct epoll_event *event)
{
    const struct watch *watch = &loop->watches[(uint32_t)event->data.u64];
    if (watch->fd != NULL && watch->serial == event->data.u64 >> 32)
        watch->fd->fn(watch->fd->arg, event->events);
}

/* ---- timers ---- */

static void heap_place(struct loop *loop, unsigned index, struct loop_timer *timer)
{
    loop->heap[index] = timer;
    timer->slot = index + 1;
}

static void heap_up(struct loop *loop, unsigned index, struct loop_timer *timer)
{
    while (index > 0 && loop->heap[(index - 1) / 2]->due_ns > timer->due_ns) {
        heap_place(loop, index, loop->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    heap_place(loop, index, timer);
}

static void heap_down(struct loop *loop, unsigned index, struct loop_timer *timer)
{
    for (;;) {
        unsigned child = 2 * index + 1;
        if (child >= loop->timer_count)
            break;
        if (child + 1 < loop->timer_count && loop->heap[child + 1]->due_ns < loop->heap[child]->due_ns)
            child++;
        if (loop->heap[child]->due_ns >= timer->due_ns)
            break;
        heap_place(loop, index, loop->heap[child]);
        index = child;
    }
    heap_place(loop, index, timer);
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *timer)
{
    if (timer->slot == 0)
        return;
    unsigned index = timer->slot - 1;
    assert(index < loop->timer_count && loop->heap[index] == timer);
    timer->slot = 0;
    struct loop_timer *last = loop->heap[--loop->timer_count];
    if (last == timer)
        return;
    if (index > 0 && loop->heap[(index - 1) / 2]->due_ns > last->due_ns)
        heap_up(loop, index, last);
    else
        heap_down(loop, index, last);
}

void loop_timer_set(struct loop *loop, struct loop_timer *timer, int64_t due_ns)
{
    loop_timer_cancel(loop, timer);
    if (loop->timer_count == loop->timer_cap) {
        loop->timer_cap = loop->timer_cap > 0 ? 2 * loop->timer_cap : 16;
        loop->heap = xrealloc(loop->heap, loop->timer_cap * sizeof(struct loop_timer *));
    }
    timer->due_ns = due_ns;
    heap_up(loop, loop->timer_count++, timer);
}

void loop_timer_after(struct loop *loop, struct loop_timer *timer, int64_t delay_ns)
{
    loop_timer_set(loop, timer, loop_now_ns(loop) + delay_ns);
}

/* A timer that sets itself again for now runs once a round, so that descriptors get their turn. */
static void run_timers(struct loop *loop)
{
    for (unsigned left = loop->timer_count; left > 0 && loop->timer_count > 0; left--) {
        struct loop_timer *timer = loop->heap[0];
        if (timer->due_ns > loop->now_ns)
            return;
        loop_timer_cancel(loop, timer);
        timer->fn(timer->arg);
    }
}

/* ---- hooks ---- */

void loop_hook_add(struct loop *loop, struct loop_hook *hook)
{
    struct loop_hook **at = &loop->hooks;
    while (*at != NULL)
        at = &(*at)->next;
    hook->next = NULL;
    *at = hook;
}

void loop_hook_remove(struct loop *loop, struct loop_hook *hook)
{
    struct loop_hook **at = &loop->hooks;
    while (*at != hook) {
        assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = hook->next;
    if (loop->next_hook == hook)
        loop->next_hook = hook->next;
}

static void run_hooks(struct loop *loop)
{
    for (struct loop_hook *hook = loop->hooks; hook != NULL; hook = loop->next_hook) {
        loop->next_hook = hook->next;
        hook->fn(hook->arg);
    }
    loop->next_hook = NULL;
}

/* ---- turns ---- */

static bool take_turn(struct loop *loop)
{
    return !atomic_load(&loop->wanted) && sem_trywait(&loop->turn) == 0;
}

static bool enter(struct loop *loop)
{
    bool has_turn = take_turn(loop);
    if (has_turn)
        atomic_fetch_add(&loop->guests, 1);
    return has_turn;
}

static void deliver(struct mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    struct mail *first = box->head;
    box->head = NULL;
    box->tail = &box->head;
    pthread_mutex_unlock(&box->lock);
    if (first != NULL)
        box->fn(box->arg, first);
}

static void deliver_all(struct loop *loop)
{
    atomic_store(&loop->pending, false);
    for (struct mailbox *box = loop->boxes; box != NULL; box = loop->next_box) {
        loop->next_box = box->next;
        deliver(box);
    }
    loop->next_box = NULL;
}

/* With the turn, which is given back; `only` may be gone afterwards. */
static void run_turn(struct loop *loop, struct mailbox *only)
{
    struct loop *before = mine;
    mine = loop;
    loop->now_ns = clock_mono_ns();
    if (only != NULL)
        deliver(only);
    else
        deliver_all(loop);
    run_hooks(loop);
    loop->now_ns = 0;
    if (loop->timer_count > 0 && loop->heap[0]->due_ns < loop->wake_ns) {
        loop->wake_ns = 0; /* once is enough */
        wake_fd_ring(loop->stop_wake.fd);
    }
    mine = before;
    sem_post(&loop->turn);
    /* Who leaves mail to us sets `pending` and then sees that the turn is taken; we give it back and then
     * look. */
    atomic_thread_fence(memory_order_seq_cst);
}

void loop_turn(struct loop *loop)
{
    do
        run_turn(loop, NULL);
    while (atomic_load(&loop->pending) && take_turn(loop));
    atomic_fetch_sub(&loop->guests, 1);
}

/* What was left to us goes to the loop's thread. */
static void leave(struct loop *loop)
{
    if (atomic_load(&loop->pending))
        wake_fd_ring(loop->stop_wake.fd);
    atomic_fetch_sub(&loop->guests, 1);
}

void loop_turn_once(struct loop *loop)
{
    run_turn(loop, NULL);
    leave(loop);
}

void mailbox_turn_once(struct mailbox *box)
{
    struct loop *loop = box->loop;
    run_turn(loop, box);
    leave(loop);
}

/* ---- rounds ---- */

/* Waits until the next timer, at most until until_ns, without the turn. */
static int wait_for_events(struct loop *loop, struct epoll_event batch[LOOP_BATCH], int64_t until_ns)
{
    if (loop->timer_count > 0 && loop->heap[0]->due_ns < until_ns)
        until_ns = loop->heap[0]->due_ns;
    loop->wake_ns = until_ns;
    mine = NULL;
    sem_post(&loop->turn);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&loop->pending) && take_turn(loop)) {
        run_turn(loop, NULL); /* once: timers and descriptors have their turn too */
        until_ns = 0;
    }
    int64_t left = until_ns == INT64_MAX ? 0 : until_ns - clock_mono_ns();
    left = left > 0 ? left : 0;
    struct timespec ts = {.tv_sec = left / NS_PER_S, .tv_nsec = left % NS_PER_S};
    int count = epoll_pwait2(loop->epoll, batch, LOOP_BATCH, until_ns == INT64_MAX ? NULL : &ts, NULL);
    if (count < 0 && errno != EINTR)
        die("epoll_pwait2");
    atomic_store(&loop->wanted, true);
    while (sem_wait(&loop->turn) != 0)
        continue; /* a signal */
    atomic_store(&loop->wanted, false);
    mine = loop;
    return count < 0 ? 0 : count;
}

static void run_round(struct loop *loop, int64_t until_ns)
{
    struct epoll_event batch[LOOP_BATCH];
    struct loop *before = mine;
    int count = wait_for_events(loop, batch, until_ns);
    loop->now_ns = clock_mono_ns();
    for (int i = 0; i < count; i++)
        run_event(loop, &batch[i]);
    run_timers(loop);
    run_hooks(loop);
    loop->now_ns = 0;
    mine = before;
}

void loop_step(struct loop *loop, int timeout_ms)
{
    run_round(loop, clock_mono_ns() + (int64_t)timeout_ms * NS_PER_MS);
}

void loop_run(struct loop *loop)
{
    while (!atomic_load(&loop->stopping))
        run_round(loop, INT64_MAX);
    atomic_store(&loop->stopping, false);
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stopping, true);
    wake_fd_ring(loop->stop_wake.fd);
}

/* ---- mail ---- */

static void on_wake(void *arg, uint32_t events)
{
    (void)events;
    deliver(arg);
}

void mailbox_open(struct mailbox *box, struct loop *loop, void (*fn)(void *arg, struct mail *first),
                  void *arg)
{
    *box = (struct mailbox){.loop = loop, .fn = fn, .arg = arg};
    box->tail = &box->head;
    pthread_mutex_init(&box->lock, NULL);
    box->wake = (struct loop_fd){.fd = wake_fd_open(), .fn = on_wake, .arg = box};
    loop_fd_add(loop, &box->wake, EPOLLIN | EPOLLET);
    box->next = loop->boxes;
    loop->boxes = box;
}

static void take_out(struct mailbox *box)
{
    struct mailbox **at = &box->loop->boxes;
    while (*at != box)
        at = &(*at)->next;
    *at = box->next;
    if (box->loop->next_box == box)
        box->loop->next_box = box->next;
}

void mailbox_close(struct mailbox *box)
{
    take_out(box);
    deliver(box);
    loop_fd_remove(box->loop, &box->wake);
    close(box->wake.fd);
    pthread_mutex_destroy(&box->lock);
}

static bool add_mail(struct mailbox *box, struct mail *mail)
{
    bool was_empty = box->head == NULL;
    mail->next = NULL;
    *box->tail = mail;
    box->tail = &mail->next;
    return was_empty;
}

/* Both keep the lock until the end, so that the box may be closed by whoever got the mail. */
void mailbox_put(struct mailbox *box, struct mail *mail)
{
    pthread_mutex_lock(&box->lock);
    if (add_mail(box, mail))
        wake_fd_ring(box->wake.fd);
    pthread_mutex_unlock(&box->lock);
}

bool mailbox_put_turn(struct mailbox *box, struct mail *mail)
{
    pthread_mutex_lock(&box->lock);
    add_mail(box, mail);
    bool has_turn = enter(box->loop);
    if (!has_turn) {
        atomic_store(&box->loop->pending, true);
        atomic_thread_fence(memory_order_seq_cst);
        has_turn = enter(box->loop); /* whoever had it may have looked before */
    }
    pthread_mutex_unlock(&box->lock);
    return has_turn;
}
