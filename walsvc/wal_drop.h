/* Removing what is in folders: that of a copy that is dropped, above all. The register of closed logs
 * (wal_closed.h) names it by then: a crash at any step leaves a folder that the next start removes. */
#ifndef WAL_DROP_H
#define WAL_DROP_H

#include "vfs.h"

/* Removes all files of a folder. 0 or -errno. */
int wal_empty_folder(const struct vfs *fs, const char *dir);
/* All files of the folder, and the folder. 0 or -errno: the rest is for the next start; *must_end: a sync
 * failed, the process must end. */
int wal_drop_folder(const struct vfs *fs, const char *dir, bool *must_end);

#endif
