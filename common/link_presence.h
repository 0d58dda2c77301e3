/* Whether a process holds an ipc socket, found out without disturbing it. */
#ifndef COMMON_LINK_PRESENCE_H
#define COMMON_LINK_PRESENCE_H

#include <stdbool.h>

bool link_is_ipc(const char *url);
/* Whether a stream socket is bound to the file; it may not listen yet, for some microseconds. False too when
 * there is no right to connect to it, or no descriptor left. */
bool link_socket_is_bound(const char *url);

#endif
