/* One log on one simulated disk, through many lives of its walsvc: what the driver's operations work on. */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include "log_reader.h"
#include "sim_disk.h"
#include "sim_model.h"
#include "upkeep_rig.h"
#include "wal_index.h"

enum { WORLD_HOLDS = 3 };

enum sim_fault {
    FAULT_CRASH = 1, /* kills and losses of power, at any call */
    FAULT_EIO = 2,   /* any call fails */
    FAULT_SYNC = 4,  /* a sync fails */
    FAULT_FULL = 8,  /* the disk is full */
    FAULT_SHORT = 16,
    FAULT_FLIP = 32,  /* rot in a sealed segment */
    FAULT_ROT = 64,   /* rot in the newest one too */
    FAULT_NEAR = 128, /* rot next to rot */
    FAULT_LIES = 256, /* rot around payloads that imitate frames */
};

struct sim_counts {
    uint64_t crashes, recoveries, faults, shorts, appends, reads, segments, repairs, unrepaired;
};

/* A frame whose bytes were damaged, and what they were (in `wounded`). */
struct sim_wound {
    uint64_t lsn, base, offset;
    size_t at, len;
};

struct sim_world {
    unsigned faults; /* enum sim_fault */
    uint64_t random, segment_size;
    struct sim_disk *disk;
    struct wal_rig rig;
    struct upkeep_rig upkeep;
    struct model model;
    uint64_t holds[WORLD_HOLDS]; /* of members, by their first LSN needed; 0: none */
    struct log_reader *reader;
    struct wal_index *index;
    struct buf wounds, wounded; /* struct sim_wound */
    bool is_full, rots;
    int64_t now_ns; /* of the world; see sim.c */
    struct sim_counts counts;
};

/* One operation; false: a file call failed, so that the process is dead. */
struct sim_operation {
    const char *name;
    unsigned weight;
    unsigned needs; /* enum sim_fault */
    bool (*run)(struct sim_world *world);
};
/* Ends with a name of NULL. To test another one, write its function and add a row. */
extern const struct sim_operation sim_operations[];

/* The frame's bytes in its file are about to be damaged. */
void world_note_wound(struct sim_world *world, const struct model_frame *frame, struct slice file);
/* Brings back all that can be. */
void world_repair_all(struct sim_world *world);
bool op_repair(struct sim_world *world);
bool op_repair_wrong(struct sim_world *world);
bool op_scrub(struct sim_world *world);

/* A new disk with a new log, from the world's random numbers. */
void world_begin(struct sim_world *world);
/* Everything is compared a last time, after a clean stop and a loss of power. */
void world_end(struct sim_world *world);
/* The process dies, the disk suffers, the next one recovers: then everything is compared. */
void world_crash(struct sim_world *world);
uint64_t world_random(struct sim_world *world, uint64_t below);
bool world_chance(struct sim_world *world, unsigned one_in);

#endif
