/* The one way in which walsvc ends on a failed file call. */
#include "wal_fatal.h"

#include <string.h>
#include <unistd.h>

#include "log.h"
#include "exit_code.h"

void wal_fatal(const char *what, const char *dir, int result)
{
    log_error(what, log_text("dir", dir), log_text("error", strerror(-result)));
    _exit(EXIT_FAULT);
}
