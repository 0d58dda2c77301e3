/* The sd_notify protocol: the receiving end, one datagram socket for each service. */
#ifndef SUP_NOTIFY_H
#define SUP_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "buf.h"
#include "sup_report.h"

enum { SUP_NOTICE_MAX = 4096 };

/* One datagram: what we understand of it. */
struct sup_notice {
    pid_t sender; /* as the kernel says */
    bool ready, watchdog, has_status;
    char status[SUP_STATUS_MAX + 1]; /* control characters replaced */
};

/* A non-blocking socket at path (which is removed first), for this user only; -1 with errno. */
int sup_notify_open(const char *path);
/* False when no datagram is left. One that is too long is taken as empty. */
bool sup_notify_receive(int fd, struct sup_notice *out);
/* Lines "KEY=value"; unknown ones are passed over. Leaves the sender alone. */
void sup_notice_parse(struct slice text, struct sup_notice *out);

#endif
