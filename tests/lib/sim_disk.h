/* A disk in memory for struct vfs: knows what is synced, can be stopped at any call, and loses, tears and
 * garbles what isn't synced. Thread-safe.
 *
 * What it assumes of a real one: a sector (512 bytes) that is being overwritten holds its old or its new
 * bytes, and bytes that a write doesn't change keep their value; names become durable by sync_dir only, in
 * the order of the calls. */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include "buf.h"
#include "vfs.h"

struct sim_disk;

enum sim_loss {
    SIM_LOSE_NOTHING, /* the process was killed: what isn't synced is there, and still isn't synced */
    SIM_LOSE_ALL,     /* power loss: nothing that wasn't synced is there */
    SIM_LOSE_SOME,    /* power loss: each sector and name by chance; some sectors garbled */
};

struct sim_disk *sim_disk_open(void);
void sim_disk_close(struct sim_disk *disk);
const struct vfs *sim_disk_vfs(struct sim_disk *disk);
/* Calls so far that change something (sync included). */
uint64_t sim_disk_calls(const struct sim_disk *disk);
/* After so many further ones, each call fails with -EIO and changes nothing. */
void sim_disk_stop_after(struct sim_disk *disk, uint64_t calls);
/* The process is gone (all descriptors are closed), the disk comes back as it may be then. */
void sim_disk_crash(struct sim_disk *disk, enum sim_loss loss, uint64_t seed);
/* The next sync of a file fails with -EIO, and what it should have written is never written by a later one.
 */
void sim_disk_fail_next_sync(struct sim_disk *disk);
/* Writes that make files longer fail with -ENOSPC, beyond the bytes of the files that are deleted from then
 * on. */
void sim_disk_set_full(struct sim_disk *disk, bool full);
/* The bytes of a file, for tests that damage it; NULL when there is none. The size is fixed. */
struct slice sim_disk_file(struct sim_disk *disk, const char *path);
/* Cuts or lengthens (with zeros) a file, durably. */
void sim_disk_resize(struct sim_disk *disk, const char *path, size_t len);

#endif
