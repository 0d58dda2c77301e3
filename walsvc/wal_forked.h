/* The folder <data>/forked: frames that were cut off logs, to be replaced by those that others have
 * (wal_cut.h). One folder for each cut: "<log uuid>-<LSN of the first entry, 20 digits>", a further one of
 * that name "-2" and so on; ".done" when what is in it was appended again. Nothing here is fatal. */
#ifndef WAL_FORKED_H
#define WAL_FORKED_H

#include <limits.h>

#include "clock.h"
#include "vfs.h"

enum { WAL_FORKED_NAME_MAX = 80 };

/* An empty folder without a name of its own yet, for the log: its path. 0 or -errno. */
int wal_forked_begin(const struct vfs *fs, const char *data, struct id16 log, char folder[PATH_MAX]);
/* Its files are synced: it gets its name, durably. */
int wal_forked_end(const struct vfs *fs, const char *data, struct id16 log, uint64_t lsn,
                   char name[WAL_FORKED_NAME_MAX]);

struct wal_forked_folder {
    char name[WAL_FORKED_NAME_MAX];
    uint64_t lsn;
    unsigned number; /* 1, or that behind the LSN */
};
/* The folders of the log that are not done, in the order of LSN and number; the caller frees them. 0 or
 * -errno. */
int wal_forked_list(const struct vfs *fs, const char *data, struct id16 log,
                    struct wal_forked_folder **folders, size_t *count);
/* What an earlier start has written down of a folder's progress (wal_regain.h) is void: the log may have lost
 * what was appended again. 0 or -errno. */
int wal_forked_forget_progress(const struct vfs *fs, const char *data, struct id16 log);
/* All of it was appended again. */
int wal_forked_done(const struct vfs *fs, const char *data, const char *name);

#endif
