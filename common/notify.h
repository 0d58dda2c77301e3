/* The sending end of the sd_notify protocol for what may be lost rather than waited for: sd_notify(3) itself
 * waits while the receiver's queue (10 datagrams by default) is full, and would let one that stands still
 * hold us too. */
#ifndef COMMON_NOTIFY_H
#define COMMON_NOTIFY_H

/* Sends "WATCHDOG=1", "STATUS=..." and the like to $NOTIFY_SOCKET, when it is set. Never waits. */
void notify_try(const char *text);

#endif
