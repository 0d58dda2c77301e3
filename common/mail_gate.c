/* Gates to mailboxes. */
#include "mail_gate.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "buf.h"

struct mail_gate {
    pthread_mutex_t lock;
    struct mailbox *mailbox; /* NULL once shut; under the lock */
    atomic_uint holders;
};

struct mail_gate *mail_gate_open(struct mailbox *mailbox)
{
    struct mail_gate *gate = xcalloc(1, sizeof *gate);
    pthread_mutex_init(&gate->lock, NULL);
    gate->mailbox = mailbox;
    gate->holders = 1;
    return gate;
}

void mail_gate_hold(struct mail_gate *gate)
{
    atomic_fetch_add(&gate->holders, 1);
}

void mail_gate_leave(struct mail_gate *gate)
{
    if (atomic_fetch_sub(&gate->holders, 1) > 1)
        return;
    pthread_mutex_destroy(&gate->lock);
    free(gate);
}

void mail_gate_shut(struct mail_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->mailbox = NULL;
    pthread_mutex_unlock(&gate->lock);
}

bool mail_gate_post(struct mail_gate *gate, struct mail *mail, bool at_once)
{
    bool has_turn = false;
    pthread_mutex_lock(&gate->lock);
    struct mailbox *mailbox = gate->mailbox;
    struct loop *loop = mailbox != NULL ? mailbox->loop : NULL;
    if (mailbox != NULL && at_once)
        has_turn = mailbox_put_turn(mailbox, mail);
    else if (mailbox != NULL)
        mailbox_put(mailbox, mail);
    pthread_mutex_unlock(&gate->lock);
    if (has_turn)
        loop_turn(loop);
    return mailbox != NULL;
}
