/* A log of several small segments on a simulated disk, with its upkeep: for tests of holds, trims, the
 * scrubber. */
#ifndef TESTS_KEPT_LOG_H
#define TESTS_KEPT_LOG_H

#include "sim_disk.h"
#include "upkeep_rig.h"

enum { KEPT_SEGMENT = 16 << 10, KEPT_ENTRIES = 300 };
extern const char kept_data[];
extern struct wal_rig kept_rig;
extern struct upkeep_rig kept;
extern struct sim_disk *kept_disk;
extern const struct vfs *kept_fs;

/* KEPT_ENTRIES entries of producer 7, and the mark behind them. settings NULL: no limits, no scrubber. */
void kept_setup_with(const struct wal_upkeep_settings *settings);
void kept_setup(void);
/* Segments of 1 MiB, of which a step of the scrubber reads a quarter. */
void kept_setup_large(void);
void kept_teardown(void);
/* The process ends, the disk comes back as it may be then, and it is started again. */
void kept_restart(enum sim_loss loss, uint64_t seed);
struct slice kept_payload_of(uint64_t n);
void kept_append_up_to(uint64_t from, uint64_t to);
/* The number of segments, and their first and last base LSN; newest may be NULL. */
uint64_t kept_list(uint64_t *first, uint64_t *newest);
uint64_t kept_base_of(size_t index);
/* The path of a segment's file, with another suffix. */
void kept_path_of(uint64_t base, const char *suffix, char path[PATH_MAX]);
bool kept_exists(const char *name);
/* Damages a byte; the second time mends it. */
void kept_flip(const char *path, size_t at);
/* Entries from the first LSN left to the last are there, nothing is damaged, and the producer goes on. */
void kept_check_log(uint64_t first, uint64_t last);

/* A scrubber with an interval of 100 s, and one pass of it; returns its steps. */
extern const struct wal_upkeep_settings kept_scrubs;
unsigned kept_scrub_a_pass(void);

#endif
