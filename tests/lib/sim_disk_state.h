/* What the two files of the simulated disk share. Not for tests. */
#ifndef TESTS_SIM_DISK_STATE_H
#define TESTS_SIM_DISK_STATE_H

#include <pthread.h>

#include "sim_disk.h"

enum { NAMES_MAX = 512, INODES_MAX = 4096, FDS_MAX = 4096, OPS_MAX = 4096, PATH_BYTES = 256, SECTOR = 512 };

/* What a sector held after one of the writes since the last sync. */
struct sector_version {
    size_t sector;
    uint8_t bytes[SECTOR];
};
struct inode {
    struct buf now, durable;
    struct buf dirty;    /* a byte for each sector: written since the last sync */
    struct buf versions; /* of sectors, in the order of the writes; while recording */
    bool is_dir, is_used;
    bool is_changed; /* now and durable may differ */
};
struct name {
    char path[PATH_BYTES];
    struct inode *inode;
};
struct names {
    struct name all[NAMES_MAX];
    size_t count;
};
/* A change of the names that no sync_dir has made durable yet; inode NULL: the name goes. */
struct name_op {
    char path[PATH_BYTES], gone[PATH_BYTES];
    struct inode *inode;
};

struct sim_disk {
    struct vfs fs;
    pthread_mutex_t lock;
    struct inode inodes[INODES_MAX];
    size_t inode_count; /* used ones lie below */
    struct names now, durable;
    struct name_op ops[OPS_MAX];
    size_t op_count;
    struct inode *fds[FDS_MAX];
    uint64_t calls, stop_at, random;
    struct sim_faults faults;
    bool is_full, fail_next_sync, is_recording;
    size_t room; /* of a full disk: what was deleted since */
};

/* ---- sim_disk.c ---- */
struct name *sim_find_name(struct names *names, const char *path);
void sim_set_name(struct names *names, const char *path, struct inode *inode);
void sim_apply_op(struct names *names, const struct name_op *op);
void sim_resize(struct buf *data, size_t len);
/* Brings the dirty sectors and the size to the disk. */
void sim_write_back(struct inode *inode);
uint64_t sim_random(struct sim_disk *disk);

#endif
