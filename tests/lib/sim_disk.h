/* A disk in memory for struct vfs: knows what is synced, can be stopped at any call, fails and shortens
 * calls, and loses, tears and garbles what isn't synced. Thread-safe.
 *
 * What it assumes of a real one: bytes that a write doesn't change keep their value; names become durable by
 * sync_dir only, each by itself. */
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
/* From now on, by chance: about one call of so many fails with -EIO (a write after some of its bytes, a sync
 * as above; opening and sizes never), about one transfer of so many is short; 0: none. */
struct sim_faults {
    uint32_t error_one_in, short_one_in;
    uint64_t errors, shorts; /* counted */
};
void sim_disk_set_faults(struct sim_disk *disk, const struct sim_faults *faults, uint64_t seed);
struct sim_faults sim_disk_faults(const struct sim_disk *disk);
/* The bytes of a file that a loss of power would change: those not synced, and what a size not synced takes.
 */
size_t sim_disk_unsynced(struct sim_disk *disk, const char *path);
/* Rot: bits of one byte change at rest. */
void sim_disk_flip(struct sim_disk *disk, const char *path, size_t offset, uint8_t bits);
/* The bytes of a file, for tests that damage it; NULL when there is none. The size is fixed. */
struct slice sim_disk_file(struct sim_disk *disk, const char *path);
/* Cuts or lengthens (with zeros) a file, durably. */
void sim_disk_resize(struct sim_disk *disk, const char *path, size_t len);

/* ---- crash images: every disk that a loss of power could leave ----
 *
 * While recording, each version of a sector since its last sync is kept. A choice is which of them the disk
 * holds (0: the synced one), whether a size that isn't synced counts, and whether a change of names does. */
void sim_disk_record(struct sim_disk *disk, bool on);
/* The independent choices now, by the number of their options; at most `most`, or it is fatal. */
size_t sim_disk_choices(const struct sim_disk *disk, uint32_t *options, size_t most);
/* A disk of its own that holds what is chosen, one number below the option's for each choice. */
struct sim_disk *sim_disk_image(const struct sim_disk *disk, const uint32_t *chosen);

#endif
