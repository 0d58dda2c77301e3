/* Checkpoints of the view go through replsvc: from this node's querysvc to a member's, and from a member's to
 * this node's. Nothing of them is kept here, and none of what they say is looked at, but for who asks. */
#ifndef REPL_VIEW_H
#define REPL_VIEW_H

#include "repl_shell.h"

struct repl_view;

void repl_view_open(struct repl_service *r);
void repl_view_close(struct repl_service *r);
/* This node's querysvc asks a member; a later question takes the place of one that is out. */
void repl_view_ask(struct repl_service *r, const struct link_request *request);
/* A member asks, at port + 4. */
void repl_view_asked(struct repl_service *r, uint64_t token, struct slice sender,
                     const struct msg_checkpoint *m);

#endif
