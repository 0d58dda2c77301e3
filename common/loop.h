/* The one loop of a service or client: file descriptors, timers, hooks, and mail from other threads.
 *
 * Everything here, and all that the loop's callbacks own, belongs to whoever has the loop's turn. The thread
 * that opened the loop has it first, then the one that runs it, but for the time that it waits. Then a thread
 * that brings mail may take the turn and deal with the mail at once, where it stands: a hand-over to a
 * sleeping thread costs more than most mail does (docs/adr/0003). Who has the turn deals with all the mail
 * that comes meanwhile. Without the turn only loop_stop, mailbox_put, mailbox_put_turn, loop_turn and
 * loop_is_mine may be called. Callbacks may add and remove anything, themselves included. Failures of epoll
 * and eventfd are fatal. */
#ifndef COMMON_LOOP_H
#define COMMON_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct loop;

struct loop *loop_open(void);
/* Everything added must have been removed. With the turn. */
void loop_close(struct loop *loop);
/* Runs until loop_stop. */
void loop_run(struct loop *loop);
/* Runs what is ready; waits at most timeout_ms for it (tests, and draining at the end). */
void loop_step(struct loop *loop, int timeout_ms);
/* From any thread or callback. */
void loop_stop(struct loop *loop);
/* Whether the calling thread has the turn, so that nothing it waits for may need it. */
bool loop_is_mine(const struct loop *loop);
/* CLOCK_MONOTONIC in ns, read once after each wait; outside of a round it is read anew. */
int64_t loop_now_ns(const struct loop *loop);

/* A watched file descriptor; the caller owns the struct and keeps it until loop_fd_remove. */
struct loop_fd {
    int fd;
    void (*fn)(void *arg, uint32_t events); /* EPOLLIN and so on */
    void *arg;
    unsigned slot; /* the loop's: place in its table */
};
void loop_fd_add(struct loop *loop, struct loop_fd *fd, uint32_t events);
void loop_fd_remove(struct loop *loop, struct loop_fd *fd);

/* A one-shot timer; zero-initialise, set fn and arg; the caller owns it. Setting it again moves it. */
struct loop_timer {
    void (*fn)(void *arg);
    void *arg;
    int64_t due_ns;
    unsigned slot; /* the loop's: place in its heap, 0 when not set */
};
void loop_timer_set(struct loop *loop, struct loop_timer *timer, int64_t due_ns);
void loop_timer_after(struct loop *loop, struct loop_timer *timer, int64_t delay_ns);
void loop_timer_cancel(struct loop *loop, struct loop_timer *timer);

/* Called once after each round of callbacks or turn with mail: to send in one go what gathered. */
struct loop_hook {
    void (*fn)(void *arg);
    void *arg;
    struct loop_hook *next;
};
void loop_hook_add(struct loop *loop, struct loop_hook *hook);
void loop_hook_remove(struct loop *loop, struct loop_hook *hook);

/* Mail from other threads, many to a wake-up. The first member of what is sent is a struct mail. */
struct mail {
    struct mail *next;
};
struct mailbox {
    pthread_mutex_t lock;
    struct mail *head, **tail;
    struct loop_fd wake;
    struct loop *loop;
    void (*fn)(void *arg, struct mail *first); /* a list, oldest first; the receiver owns it */
    void *arg;
    struct mailbox *next;
};
void mailbox_open(struct mailbox *box, struct loop *loop, void (*fn)(void *arg, struct mail *first),
                  void *arg);
/* Mail that was not delivered is handed to fn(arg, first) before the end. */
void mailbox_close(struct mailbox *box);
/* From any thread: the mail is dealt with by the thread that runs the loop. */
void mailbox_put(struct mailbox *box, struct mail *mail);
/* The same, but takes the loop's turn when it is free; when it isn't, somebody sees to the mail who has it
 * now or next. True: the caller must call one of the three below next, having let go of all locks; until then
 * nothing of the loop can go. */
bool mailbox_put_turn(struct mailbox *box, struct mail *mail);
/* Each deals with mail, runs the hooks and gives the turn back: */
void loop_turn(struct loop *loop);           /* all mail, and what comes meanwhile */
void loop_turn_once(struct loop *loop);      /* all mail; what comes meanwhile is the loop's thread's */
void mailbox_turn_once(struct mailbox *box); /* the mail of this box only */

#endif
