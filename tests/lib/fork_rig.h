/* A copy on one chain of a log whose other chain comes to it: messages from where both are the same, and what
 * must be there afterwards. */
#ifndef TESTS_FORK_RIG_H
#define TESTS_FORK_RIG_H

#include "copy_rig.h"

struct fork_rig {
    const char *data;   /* the data directory; "/holder", unless set after fork_rig_make */
    struct origin a, b; /* the copy's chain, and the one that comes */
    struct log_chain fork;
    struct copy_rig rig;
    struct wal_given_up given_up;
};

/* Two chains; *disk, or NULL: as origin_make_two. */
void fork_rig_make(struct fork_rig *f, const struct origin_fork *how, struct sim_disk **disk);
void fork_rig_free(struct fork_rig *f);
/* The unit where the segment of b begins that holds the fork, or ends there: where it is fetched from. */
size_t fork_rig_start(const struct fork_rig *f);
/* Opens the copy as a start does, as the own log's when own. */
enum sh_error fork_rig_open(struct fork_rig *f, const struct vfs *fs, bool own);
/* Brings b from that unit on, `most` units a message; false: a file call has failed, and the rig can only be
 * closed. A refusal is fatal. */
bool fork_rig_bring(struct fork_rig *f, size_t unit, size_t most);
/* Every frame of a from the fork on lies in some folder of <data>/forked, byte for byte, and nothing else;
 * the number of those folders. */
size_t fork_rig_check_kept(const struct fork_rig *f, const struct vfs *fs);

#endif
