/* The control socket: commands of people and scripts, one message in each packet of a SOCK_SEQPACKET socket.
 *
 * Open to this user only (mode 0600). Bounded: SUP_CONTROL_MOST connections (one more closes the oldest),
 * SUP_CONTROL_BYTES a command, one command at a time; who doesn't take an answer is closed. */
#ifndef SUP_CONTROL_H
#define SUP_CONTROL_H

#include "loop.h"
#include "messages.h"

enum {
    SUP_CONTROL_MOST = 16,
    SUP_CONTROL_BACKLOG = 64,
    SUP_CONTROL_BYTES = 4096,
    SUP_REPLY_BYTES = 128 << 10,
    SUP_TEXT_BYTES = 1024 /* of svc_reply's text; longer ones are cut */
};

/* An answer; the slices in `message` point into the bufs, or to static text. */
struct sup_reply {
    struct msg_svc_reply message;
    struct buf text, tree, obituaries;
};

struct sup_control;

struct sup_control_options {
    struct loop *loop;
    const char *path;     /* borrowed for the socket's life; a file there is removed first */
    struct slice cluster; /* another cluster's commands are refused */
    const char *node;
    /* Fills in the answer. */
    void (*on_command)(void *arg, uint64_t correlation, const struct msg_svc_command *command,
                       struct sup_reply *reply);
    void *arg;
};

/* NULL with errno. */
struct sup_control *sup_control_open(const struct sup_control_options *options);
/* Closes all connections and removes the file. */
void sup_control_close(struct sup_control *control);

#endif
