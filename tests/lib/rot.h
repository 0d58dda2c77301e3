/* A log on the simulated disk whose bytes rot: made, damaged, opened again, and compared with what should be
 * left. One at a time. */
#ifndef TESTS_ROT_H
#define TESTS_ROT_H

#include "sim_disk.h"
#include "wal_rig.h"

enum { ROT_SEGMENT = 64 << 10, ROT_PAYLOAD = 100, ROT_ENTRIES_MAX = 4096 };

extern const char rot_data[];
extern struct sim_disk *rot_disk;
extern const struct vfs *rot_fs;
extern struct wal_rig rot_rig;
extern char rot_dir[PATH_MAX]; /* of the log */

/* Where each noted entry's frame lies. */
struct rot_place {
    uint64_t base, offset, end;
};
extern struct rot_place rot_places[ROT_ENTRIES_MAX];

int rot_setup(void **state);
int rot_teardown(void **state);
/* On an empty disk. */
void rot_start_over(void);

enum service_exit rot_try_open(void);
/* With another segment prepared. */
void rot_open(void);
void rot_crash(enum sim_loss loss);

/* The payload of the n-th entry. */
struct slice rot_payload(uint64_t n);
/* Entry n gets LSN n and sequence n, as long as nothing is lost. */
void rot_append(uint64_t first, uint64_t last);
void rot_append_noted(uint64_t first, uint64_t last);
/* Of no producer, whose earlier entries may be lost. */
void rot_append_anew(uint64_t first, uint64_t last);
/* Opens the log and appends up to the first entry that lies in the given segment (1 is the first), and ten
 * more; *last is the last of them, the result the segment's base LSN. */
uint64_t rot_fill(unsigned segment, uint64_t *last);

/* Of a segment; good until the next call. */
const char *rot_path(uint64_t base);
uint8_t *rot_file(const char *path);
/* What was done to a file's bytes stays over a loss of power. */
void rot_keep(const char *path);
void rot_bytes(uint64_t base, uint64_t offset, uint64_t bytes);
void rot_entry(uint64_t n);

/* The ranges in the register, and the first of them. */
size_t rot_ranges(struct log_damage_range *first);
/* Reads all of the log, past damage: exactly `count` entries from `first` on are missing, all others come
 * back with their bytes, up to `last`. */
void rot_assert_log(uint64_t last, uint64_t first, uint64_t count);
/* How many damages verify names. */
uint64_t rot_damages(void);
/* What lies in the quarantine. */
struct rot_kept {
    size_t files, bytes;
};
struct rot_kept rot_kept(void);
/* A log of ten noted entries, closed; its durable end. */
uint64_t rot_make_ten(void);
/* The entries from `lost` to `last`, the newest, are gone: the log goes on behind them, in a new segment at
 * mark_end, now and after the next start. */
void rot_assert_goes_on(uint64_t lost, uint64_t last, uint64_t mark_end);

#endif
