/* The node's directories, the locks that keep a second supervisor out of them, and the sockets in them. */
#ifndef SUP_DIRS_H
#define SUP_DIRS_H

#include <stdbool.h>

#include "exit_code.h"

/* Makes a directory and those above it (mode 0700, 0755 for those above). False: logged. */
bool sup_make_dir(const char *path);
/* Makes dir, locks dir/lock for this process's life and writes its pid there. *fd: the lock, to be closed at
 * the end. Anything but EXIT_DONE was logged: EXIT_IN_USE when another process has it. */
enum service_exit sup_lock_dir(const char *dir, int *fd);
/* A non-blocking unix socket at path, where what was there is removed first, for this user only; -1 with
 * errno. */
int sup_bind(int type, const char *path);

#endif
