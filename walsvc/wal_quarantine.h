/* The folder data/quarantine: copies of bytes that were cut off a torn tail, or that are damaged. Nothing
 * here is fatal. */
#ifndef WAL_QUARANTINE_H
#define WAL_QUARANTINE_H

#include "clock.h"
#include "log_damage.h"
#include "vfs.h"

bool wal_is_full(int result);
/* Copies a range of a file, into another file or over itself. 0 or -errno; -EIO also when it is shorter. */
int wal_copy_range(const struct vfs *fs, int from_fd, uint64_t from, uint64_t to, int to_fd, uint64_t at);
/* Copies the bytes [from, to) of an open file into a new file of the folder `quarantine` (made when it isn't
 * there), synced with its name: "<log uuid>-<position>-<ns since 1970>.bin". position: in the log, of the
 * first byte. name gets the file's name, "" unless 0 is returned. 0 or -errno: then nothing is left behind.
 */
int wal_quarantine(const struct vfs *fs, const char *quarantine, struct id16 log, uint64_t position, int fd,
                   uint64_t from, uint64_t to, char name[LOG_DAMAGE_COPY_MAX]);

#endif
