/* PULL sockets, and how any socket of ours listens. Fatal: nng running out of memory while it opens things.
 */
#include "pull_socket.h"

#include <nng/protocol/pipeline0/pull.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "log.h"

struct pull_socket {
    nng_socket socket;
    nng_aio *aio;
    struct mailbox *mailbox;
    struct mail *(*wrap)(void *arg, nng_msg *message, bool held_back);
    void *arg;
    size_t waiting_most;
    atomic_size_t waiting;
};

void nng_need(int result, const char *call)
{
    if (result == 0)
        return;
    log_error("nng failed", log_text("call", call), log_text("error", nng_strerror(result)));
    abort();
}

enum sh_error nng_listen_on(nng_socket socket, const char *url, size_t message_bytes)
{
    nng_listener listener;
    nng_need(nng_socket_set_size(socket, NNG_OPT_RECVMAXSZ, message_bytes), NNG_OPT_RECVMAXSZ);
    if (strncmp(url, "ipc://", strlen("ipc://")) == 0)
        unlink(url + strlen("ipc://")); /* nng would probe it, which can end a listener for good */
    int rv = nng_listener_create(&listener, socket, url);
    if (rv == 0) {
        nng_listener_set_bool(listener, NNG_OPT_TCP_KEEPALIVE, true); /* means nothing over ipc */
        rv = nng_listener_start(listener, 0);
    }
    if (rv == 0)
        return SH_OK;
    log_error("cannot listen", log_text("url", url), log_text("error", nng_strerror(rv)));
    return SH_UNAVAILABLE;
}

/* On nng's threads. */
static void on_received(void *arg)
{
    struct pull_socket *pull = arg;
    int rv = nng_aio_result(pull->aio);
    if (rv == NNG_ECLOSED || rv == NNG_ECANCELED)
        return;
    if (rv != 0) {
        nng_recv_aio(pull->socket, pull->aio);
        return;
    }
    nng_msg *message = nng_aio_get_msg(pull->aio);
    size_t len = nng_msg_len(message);
    bool hold_back = atomic_fetch_add(&pull->waiting, len) + len > pull->waiting_most;
    struct loop *loop = pull->mailbox->loop;
    bool has_turn = mailbox_put_turn(pull->mailbox, pull->wrap(pull->arg, message, hold_back));
    if (!hold_back) /* before the turn: what comes next must not wait for it */
        nng_recv_aio(pull->socket, pull->aio);
    if (has_turn)
        loop_turn(loop);
}

enum sh_error pull_socket_open(const struct pull_options *options, struct pull_socket **out)
{
    struct pull_socket *pull = xcalloc(1, sizeof *pull);
    pull->mailbox = options->mailbox;
    pull->wrap = options->wrap;
    pull->arg = options->arg;
    pull->waiting_most = options->waiting_bytes;
    nng_need(nng_pull0_open(&pull->socket), "nng_pull0_open");
    nng_need(nng_aio_alloc(&pull->aio, on_received, pull), "nng_aio_alloc");
    enum sh_error e = nng_listen_on(pull->socket, options->url, options->message_bytes);
    if (e == SH_OK) {
        *out = pull;
    } else {
        pull_socket_close(pull);
        pull_socket_free(pull);
    }
    return e;
}

void pull_socket_start(struct pull_socket *pull)
{
    nng_recv_aio(pull->socket, pull->aio);
}

void pull_socket_taken(struct pull_socket *pull, size_t bytes)
{
    atomic_fetch_sub(&pull->waiting, bytes);
}

void pull_socket_resume(struct pull_socket *pull)
{
    nng_recv_aio(pull->socket, pull->aio);
}

void pull_socket_close(struct pull_socket *pull)
{
    nng_aio_stop(pull->aio);
    nng_close(pull->socket);
}

void pull_socket_free(struct pull_socket *pull)
{
    nng_aio_free(pull->aio);
    free(pull);
}
