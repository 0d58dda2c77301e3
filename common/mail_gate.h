/* A way to a mailbox that can be shut: for threads that may still have something to tell when nobody wants to
 * hear it any more. */
#ifndef COMMON_MAIL_GATE_H
#define COMMON_MAIL_GATE_H

#include "loop.h"

struct mail_gate;

/* Opened with one holder. */
struct mail_gate *mail_gate_open(struct mailbox *mailbox);
void mail_gate_hold(struct mail_gate *gate);
/* The last holder frees it. */
void mail_gate_leave(struct mail_gate *gate);
/* Nothing gets through after this. */
void mail_gate_shut(struct mail_gate *gate);
/* From any thread. at_once: when nobody has the loop's turn, it is taken, and the mail dealt with here.
 * False: shut; the mail stays the caller's. */
bool mail_gate_post(struct mail_gate *gate, struct mail *mail, bool at_once);

#endif
