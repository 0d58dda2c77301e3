/* The client's end of the supervisor's control socket (run_dir/supervisor.sock): one command, one answer. */
#ifndef COMMON_CONTROL_H
#define COMMON_CONTROL_H

#include "messages.h"

enum { CONTROL_REPLY_MAX = 1 << 20 };

/* Connects, sends the command, waits for the answer: at most timeout_ms in all. The slices of *reply point
 * into *storage (zero-initialised or used before; the caller frees it). SH_OK: there is an answer, and
 * reply->code says how the command went. SH_UNAVAILABLE: nobody answers there, or the connection was closed.
 * SH_TIMEOUT: no answer in time; the command may have been done. SH_TOO_LARGE, SH_BAD_REQUEST,
 * SH_VERSION_MISMATCH: the answer is not one of ours. */
enum sh_error control_call(const char *socket_path, const struct msg_svc_command *command, int timeout_ms,
                           struct buf *storage, struct msg_svc_reply *reply);

#endif
