/* The copy of another node's log without its thread: what a copier does with the files, one step at a time;
 * and an origin to copy from. */
#ifndef TESTS_COPY_RIG_H
#define TESTS_COPY_RIG_H

#include "sim_disk.h"
#include "wal_copy_check.h"
#include "wal_given_up.h"
#include "wal_rig.h"

enum { ORIGIN_SEGMENT = 16 << 10, ORIGIN_UNITS_MAX = 4096 };

/* A frame, of the first one in a segment with the header before it. */
struct origin_unit {
    uint64_t begin, end; /* positions */
    bool opens_segment;
    uint64_t base_lsn;
};

#define ORIGIN_DATA "/origin"

/* A log, all of it: a position is an offset in its bytes. */
struct origin {
    struct id16 log;
    struct buf bytes;
    struct origin_unit units[ORIGIN_UNITS_MAX];
    size_t count;
};

/* Some 20 KB each entry's payload at most; several segments, LSNs from 1 on. Each seed makes another one. */
void origin_make(struct origin *origin, unsigned entries, uint64_t seed);
/* Two logs with the same uuid, and the same frames up to *fork, the place behind `common` entries: two lives
 * of one disk. Entries have producers: each third one none, the others two, whose sequences go on in both. */
struct origin_fork {
    unsigned common, tail_a, tail_b; /* entries */
    size_t first_a, first_b;         /* bytes of the payload of the first entry behind the fork; 0: any */
    uint64_t seed;
};
/* *disk: with the data directory ORIGIN_DATA of the first life; NULL: nobody wants it. */
void origin_make_two(struct origin *a, struct origin *b, const struct origin_fork *how,
                     struct log_chain *fork, struct sim_disk **disk);
/* What the data directory ORIGIN_DATA of a node that has stopped holds. */
void origin_read(struct origin *origin, struct sim_disk *disk);
void origin_free(struct origin *origin);
/* The bytes of the units [first, behind). */
struct slice origin_bytes(const struct origin *origin, size_t first, size_t behind);
/* The unit behind `first` where a message may end that has at most `most` of them: all are of one segment. */
size_t origin_cut(const struct origin *origin, size_t first, size_t most);
/* The unit that begins at the position; it is fatal when none does. */
size_t origin_find(const struct origin *origin, uint64_t position);

/* A disk with the data directory HOLDER_DATA of a node that holds no copy yet, and no log of its own. */
#define HOLDER_DATA "/holder"
struct sim_disk *holder_disk(struct wal_dir *dir);

struct copy_rig {
    const struct vfs *fs;
    char data[PATH_MAX], path[PATH_MAX], quarantine[PATH_MAX];
    struct id16 log;
    struct wal_damage *damage;
    struct wal_log files;
    uint64_t segment_size;
    struct wal_refusal refusal;    /* of the last append */
    int fatal;                     /* -errno of what would have ended walsvc */
    bool over;                     /* the next appends replace what is other */
    struct wal_given_up *given_up; /* with that: the register; NULL: of another node's log */
    bool was_full;                 /* the last cut found no room */
};

/* Opens the copy in <data>/log, whose folders are made. On anything but SH_OK there is nothing to close. */
enum sh_error copy_rig_open(struct copy_rig *rig, const struct vfs *fs, const char *data, struct id16 log,
                            uint64_t segment_size);
/* The process is gone; nothing is written. */
void copy_rig_close(struct copy_rig *rig);
/* Checks and writes, without a sync unless a segment begins. *good false: a file call has failed, and the rig
 * can only be closed. */
enum wal_copy_verdict copy_rig_write(struct copy_rig *rig, uint64_t position, struct slice bytes, bool anew,
                                     bool *good);
/* The same, then syncs. */
enum wal_copy_verdict copy_rig_append(struct copy_rig *rig, uint64_t position, struct slice bytes, bool anew,
                                      bool *good);
bool copy_rig_mark(struct copy_rig *rig);
size_t copy_rig_ranges(const struct copy_rig *rig);
/* Fills the copy up to the end, `most` units a message, by what it wants next. */
void copy_rig_fill(struct copy_rig *rig, const struct origin *origin, size_t most);
/* Every byte from the first segment left up to the durable end is the origin's, sealed segments end with
 * their last frame, and nothing but zeros follows in the newest. */
void copy_rig_check(struct copy_rig *rig, const struct origin *origin);

#endif
