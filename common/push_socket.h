/* A PUSH socket for one connection.
 *
 * nng 1.5.2 may take a connection whose last message went out while it was being closed for one that can
 * send, and free it (nng #1653). Whatever the socket sends next, and the connection that it gets next, would
 * go through freed memory. So it gets no second connection, and sends nothing once the first is over:
 *
 *   reaper thread: REM_POST ── over = true ── dialer closed ── on_down ──► connection freed
 *   loop's thread: ... sends under the lock ... ◄── over: nothing is sent ──► a fresh socket
 *
 * A dialer that is connected dials nobody, so it is safe to close it then. */
#ifndef COMMON_PUSH_SOCKET_H
#define COMMON_PUSH_SOCKET_H

#include <nng/nng.h>
#include <stdbool.h>

struct push_socket;

struct push_options {
    const char *url;
    int queue; /* messages that wait inside nng */
    nng_duration redial_first_ms, redial_most_ms;
    /* On nng's threads, once each at most; they must not wait. on_down comes without on_up at times. */
    void (*on_up)(void *arg);
    void (*on_down)(void *arg);
    /* The socket is no more; arg is not used after this. On any thread, at the end of push_socket_close. May
     * be NULL. */
    void (*on_closed)(void *arg);
    void *arg;
};

/* Connects in the background, again until it is connected. nng's error; then nothing is open, but on_closed
 * is called. */
int push_socket_open(const struct push_options *options, struct push_socket **out);
/* Sends by an aio that has a timeout of zero: it is over when the call returns. False: the queue is full, or
 * there is no connection; the message stays the caller's. */
bool push_socket_try(struct push_socket *push, nng_aio *aio);
/* Begins to send. False: the connection is over, and the aio is not used. */
bool push_socket_start(struct push_socket *push, nng_aio *aio);
/* It dials rarely from now on: for one that is kept until it is safe to close it. */
void push_socket_dial_rarely(struct push_socket *push);
/* May never return; see nng_closer.h. Nobody may be in another call. */
void push_socket_close(struct push_socket *push);

/* Dialling, with keepalive; for sockets of other kinds too. */
int nng_dial_background(nng_socket socket, const char *url, nng_duration first_ms, nng_duration most_ms,
                        nng_dialer *dialer);
void nng_dial_rarely(nng_dialer dialer);

#endif
