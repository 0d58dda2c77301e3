/* The data directory as walsvc finds it: locked, identified, with a folder for the node's own log. */
#ifndef WAL_DIR_H
#define WAL_DIR_H

#include "exit_code.h"
#include "log_reader.h"
#include "wal_closed.h"
#include "wal_log.h"
#include "wal_permit.h"

struct wal_dir {
    const struct vfs *fs;
    char data[PATH_MAX];
    char log[PATH_MAX];        /* <data>/log/<uuid> */
    char quarantine[PATH_MAX]; /* <data>/quarantine; made when needed */
    struct node_identity identity;
    bool is_new;               /* no identity is written yet: its log holds no entry */
    struct wal_damage *damage; /* of its log; open while the log is */
    struct wal_permit permit;  /* read with the log */
    struct wal_closed closed;  /* the same */
    uint64_t reserve_bytes;    /* of the disk: no copy of damage is made below that. 0 after wal_dir_open; the
                                  caller's to set */
    int lock_fd;
};

/* Locks <data>/log/lock and finds out whose directory it is; makes what is missing. What goes wrong is
 * logged. EXIT_IN_USE: another process has it. EXIT_CONFIG: another node's, damaged, or its log is missing:
 * somebody has to look. EXIT_FAULT: a file call failed. */
enum service_exit wal_dir_open(struct wal_dir *dir, const struct vfs *fs, const char *data_dir,
                               const char *node);
/* Opens its log (see wal_log_open), and writes the identity when it is new: never before the log exists, so
 * that a log that is gone can be told from one that was never there. */
enum service_exit wal_dir_open_log(struct wal_dir *dir, struct wal_log *log, uint64_t segment_size,
                                   struct wal_state *state);
/* What else there is to read and sync, when the log is opened as a copy. */
enum service_exit wal_dir_open_copy(struct wal_dir *dir);
void wal_dir_close(struct wal_dir *dir);

#endif
