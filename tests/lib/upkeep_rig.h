/* The janitor's work without its thread, beside a rig: a log of several segments, messages as calls. */
#ifndef TESTS_UPKEEP_RIG_H
#define TESTS_UPKEEP_RIG_H

#include "wal_rig.h"
#include "wal_upkeep.h"

struct upkeep_rig {
    struct wal_rig *rig;
    struct wal_upkeep upkeep;
    struct wal_upkeep_settings settings;
    struct wal_upkeep_time now;
    atomic_bool stop;
    unsigned fatal, damages, trims, indexes_lost;
    struct wal_scrub_damage damage; /* the last one; its texts are gone */
    uint64_t trimmed_lsn;
    /* the last answer */
    enum sh_error code;
    uint64_t expected;
    struct msg_log_trim_reply trim;
    struct msg_hold_reply hold;
    struct msg_wal_info_reply info;
    struct buf body; /* which they point into */
};

/* The settings must be filled in before; the rig is open. */
enum service_exit upkeep_rig_open(struct upkeep_rig *u, struct wal_rig *rig);
void upkeep_rig_close(struct upkeep_rig *u);
/* Each returns the error, SH_OK for none. */
enum sh_error upkeep_rig_trim(struct upkeep_rig *u, uint64_t before, bool dry_run, const char *release);
enum sh_error upkeep_rig_hold(struct upkeep_rig *u, enum wal_hold_kind kind, const char *name, uint64_t lsn,
                              uint64_t ttl_ms);
enum sh_error upkeep_rig_drop(struct upkeep_rig *u, enum wal_hold_kind kind, const char *name);
enum sh_error upkeep_rig_info(struct upkeep_rig *u, uint64_t from);
enum sh_error upkeep_rig_ask(struct upkeep_rig *u, uint32_t type, const void *message);
/* Ranges in the register of damage. */
size_t upkeep_rig_ranges(const struct upkeep_rig *u);
/* Whether the last answer to a trim names it among those that hold back; NULL: whether it names nothing. */
bool upkeep_rig_held_by(const struct upkeep_rig *u, const char *name);

#endif
