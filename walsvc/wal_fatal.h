/* Ends the process at once: a write or a sync of the log failed, so nothing that waits may be acknowledged.
 * The kernel reports a failed sync once and may have dropped the pages; trying again would acknowledge what
 * is lost. */
#ifndef WAL_FATAL_H
#define WAL_FATAL_H

/* result: -errno. From any thread. */
_Noreturn void wal_fatal(const char *what, const char *dir, int result);

#endif
