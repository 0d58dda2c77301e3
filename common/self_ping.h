/* A service's ping of its own link, each second over fresh sockets: connections that exist go on over a
 * listener that accepts no more (nng #1518), so nothing else would notice.
 *
 * A ping is answered when the pipeline is connected and a poll got a reply, be it a refusal: a link that has
 * too many clients lives. */
#ifndef COMMON_SELF_PING_H
#define COMMON_SELF_PING_H

#include "link.h"

struct self_ping;

/* on_dead is called when two pings in a row, the first one after 2 s, are unanswered; it ends the process.
 * session: the link's session of all pings; cluster and sender are borrowed. NULL: the endpoint is none. */
struct self_ping *self_ping_open(struct loop *loop, const char *endpoint, struct slice cluster,
                                 struct slice sender, struct id16 session,
                                 void (*on_dead)(const char *endpoint));
void self_ping_close(struct self_ping *ping);

#endif
