/* The loop: epoll for descriptors, a binary heap for timers, a list of hooks, mailboxes on eventfd.
 *
 * One round: wait, run ready descriptors, run timers that are due, run hooks. Fatal: a failure of epoll or
 * eventfd, which can only mean a fault in here or a process out of resources. */
#include "loop.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
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

struct loop {
    int epoll;
    int64_t now_ns; /* of the last wait; 0: not in a round */
    atomic_bool stopping;
    struct loop_fd stop_wake;
    struct epoll_event batch[LOOP_BATCH]; /* of this round; a removed descriptor's pointer is cleared */
    int batch_count;
    struct loop_timer **heap; /* heap[0] is due first; a timer's slot is its index + 1 */
    unsigned timer_count, timer_cap;
    struct loop_hook *hooks, *next_hook; /* next_hook: where the round goes on */
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
    loop->stop_wake = (struct loop_fd){.fd = wake_fd_open(), .fn = ignore_event};
    loop_fd_add(loop, &loop->stop_wake, EPOLLIN | EPOLLET);
    return loop;
}

void loop_close(struct loop *loop)
{
    assert(loop->timer_count == 0);
    assert(loop->hooks == NULL);
    loop_fd_remove(loop, &loop->stop_wake);
    close(loop->stop_wake.fd);
    close(loop->epoll);
    free(loop->heap);
    free(loop);
}

int64_t loop_now_ns(const struct loop *loop)
{
    return loop->now_ns != 0 ? loop->now_ns : clock_mono_ns();
}

/* ---- descriptors ---- */

void loop_fd_add(struct loop *loop, struct loop_fd *fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = fd};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd->fd, &event) != 0)
        die("epoll_ctl add");
}

void loop_fd_remove(struct loop *loop, struct loop_fd *fd)
{
    if (epoll_ctl(loop->epoll, EPOLL_CTL_DEL, fd->fd, NULL) != 0)
        die("epoll_ctl del");
    for (int i = 0; i < loop->batch_count; i++)
        if (loop->batch[i].data.ptr == fd)
            loop->batch[i].data.ptr = NULL;
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

/* ---- rounds ---- */

/* Waits until the next timer, at most timeout_ns (negative: for ever). */
static int wait_for_events(struct loop *loop, int64_t timeout_ns)
{
    if (loop->timer_count > 0) {
        int64_t left = loop->heap[0]->due_ns - clock_mono_ns();
        left = left > 0 ? left : 0;
        if (timeout_ns < 0 || left < timeout_ns)
            timeout_ns = left;
    }
    struct timespec ts = {.tv_sec = timeout_ns / NS_PER_S, .tv_nsec = timeout_ns % NS_PER_S};
    int count = epoll_pwait2(loop->epoll, loop->batch, LOOP_BATCH, timeout_ns < 0 ? NULL : &ts, NULL);
    if (count < 0 && errno != EINTR)
        die("epoll_pwait2");
    return count < 0 ? 0 : count;
}

static void run_round(struct loop *loop, int64_t timeout_ns)
{
    loop->batch_count = wait_for_events(loop, timeout_ns);
    loop->now_ns = clock_mono_ns();
    for (int i = 0; i < loop->batch_count; i++) {
        struct loop_fd *fd = loop->batch[i].data.ptr;
        if (fd != NULL)
            fd->fn(fd->arg, loop->batch[i].events);
    }
    loop->batch_count = 0;
    run_timers(loop);
    run_hooks(loop);
    loop->now_ns = 0;
}

void loop_step(struct loop *loop, int timeout_ms)
{
    run_round(loop, (int64_t)timeout_ms * NS_PER_MS);
}

void loop_run(struct loop *loop)
{
    while (!atomic_load(&loop->stopping))
        run_round(loop, -1);
    atomic_store(&loop->stopping, false);
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stopping, true);
    wake_fd_ring(loop->stop_wake.fd);
}

/* ---- mail ---- */

static void mailbox_deliver(void *arg, uint32_t events)
{
    struct mailbox *box = arg;
    (void)events;
    pthread_mutex_lock(&box->lock);
    struct mail *first = box->head;
    box->head = NULL;
    box->tail = &box->head;
    pthread_mutex_unlock(&box->lock);
    if (first != NULL)
        box->fn(box->arg, first);
}

void mailbox_open(struct mailbox *box, struct loop *loop, void (*fn)(void *arg, struct mail *first),
                  void *arg)
{
    *box = (struct mailbox){.loop = loop, .fn = fn, .arg = arg};
    box->tail = &box->head;
    pthread_mutex_init(&box->lock, NULL);
    box->wake = (struct loop_fd){.fd = wake_fd_open(), .fn = mailbox_deliver, .arg = box};
    loop_fd_add(loop, &box->wake, EPOLLIN | EPOLLET);
}

void mailbox_close(struct mailbox *box)
{
    mailbox_deliver(box, 0);
    loop_fd_remove(box->loop, &box->wake);
    close(box->wake.fd);
    pthread_mutex_destroy(&box->lock);
}

void mailbox_put(struct mailbox *box, struct mail *mail)
{
    mail->next = NULL;
    pthread_mutex_lock(&box->lock);
    bool was_empty = box->head == NULL;
    *box->tail = mail;
    box->tail = &mail->next;
    /* Inside the lock, so that the box may be closed by whoever got the mail. */
    if (was_empty)
        wake_fd_ring(box->wake.fd);
    pthread_mutex_unlock(&box->lock);
}
