/* What the janitor does: holds, retention and trims, the scrubber's rounds, and questions about all that.
 * Everything on one thread and any vfs; time comes in. docs/adr/0007. */
#ifndef WAL_UPKEEP_H
#define WAL_UPKEEP_H

#include "exit_code.h"
#include "wal_damage.h"
#include "wal_prepare.h"
#include "wal_rounds.h"

enum { WAL_INFO_SEGMENTS = 1000 };

/* The settings, as they stand in the configuration. */
struct wal_upkeep_settings {
    uint64_t retention_bytes;
    int64_t retention_age_ns;
    uint64_t member_hold_max; /* 0: half of the disk */
    uint64_t disk_reserve;    /* 0: see wal_prepare.h */
    uint64_t scrub_rate;
    int64_t scrub_interval_ns;
};

struct wal_upkeep_options {
    const struct vfs *fs;
    const char *dir; /* the log's; borrowed */
    struct id16 log;
    struct wal_upkeep_settings settings;
    const atomic_bool *stop;   /* see wal_trim.h; or NULL */
    struct wal_damage *damage; /* the register that the scrubber's damage goes into */
    /* Damage that the scrubber has found, each time that it meets it. May be NULL. */
    void (*on_damage)(void *arg, const struct wal_scrub_damage *damage);
    /* An index was removed, to be made again. May be NULL. */
    void (*on_index_lost)(void *arg);
    /* Everything below the LSN, and the position, is gone. May be NULL. */
    void (*on_trimmed)(void *arg, uint64_t first_lsn, uint64_t position);
    /* The copy of a closed log may be dropped, see wal_upkeep_may_drop. Told again while it is there. May be
     * NULL. */
    void (*on_drop)(void *arg);
    /* Real time: of what is older nothing is left in the node's own log, by its limit of bytes; 0: not known.
     * That log tells it, its copies of others' go by it. May be NULL. */
    _Atomic int64_t *horizon_ns;
    bool tells_horizon;
    /* A sync failed: the process must end. When this returns all the same, nothing more may be called but
     * wal_upkeep_close. */
    void (*on_fatal)(void *arg, const char *what, int result);
    void *arg;
};

struct wal_upkeep_time {
    int64_t real_ns, mono_ns;
};

/* Whether the log is closed, and where (`log_gone`). */
struct wal_gone {
    bool is_gone;
    uint64_t end, lsn;
    uint32_t checksum;
};

/* For who counts, from any thread; as the janitor has them. */
#define WAL_FIGURE_UNKNOWN UINT64_MAX
struct wal_figures {
    _Atomic uint64_t first_position; /* of what is left; WAL_FIGURE_UNKNOWN: nothing was told yet */
    _Atomic uint64_t segments;
    _Atomic uint64_t damaged_entries; /* neither repaired nor accepted as lost */
    _Atomic uint64_t scrubbed_bytes;  /* by the pass under way; 0: none is */
    _Atomic uint64_t scrubs;          /* passes that have ended since the start */
};

struct wal_upkeep {
    struct wal_upkeep_options options;
    struct wal_holds holds;
    struct wal_catalog catalog;
    struct wal_rounds rounds;
    enum wal_next next; /* the next segment, for those who ask; the caller keeps it up to date */
    /* The wall clock has jumped ahead by so much, which ages nothing until then (monotonic). */
    int64_t ahead_ns, ahead_until_ns;
    struct wal_upkeep_time looked; /* when it was compared with the monotonic one */
    struct wal_gone gone;
    bool drop_by_hand;
    struct {
        uint64_t end; /* of the log, when it was looked at; 0: it was not */
        int64_t ns;
    } gone_last;    /* real time of its last frame */
    bool has_grown; /* there may be segments that the catalogue doesn't know; the caller says so */
    struct wal_figures figures;
};

/* Reads the register of holds. EXIT_CONFIG: it is of another version. EXIT_FAULT: a file call failed. Both
 * are logged. A damaged or missing register is replaced by one hold that keeps everything. */
enum service_exit wal_upkeep_open(struct wal_upkeep *upkeep, const struct wal_upkeep_options *options,
                                  struct wal_upkeep_time now);
void wal_upkeep_close(struct wal_upkeep *upkeep);

/* Answers log_trim, hold, wal_info or look: *type and *body get the answer, an error as well. */
void wal_upkeep_answer(struct wal_upkeep *upkeep, uint32_t type, struct slice request,
                       struct wal_upkeep_time now, uint32_t *answer_type, struct buf *answer);
/* Holds that have expired go, retention takes what it may. Returns when it is due again (monotonic;
 * INT64_MAX: when something changes). */
int64_t wal_upkeep_tidy(struct wal_upkeep *upkeep, struct wal_upkeep_time now);
void wal_upkeep_set(struct wal_upkeep *upkeep, const struct wal_upkeep_settings *settings);

/* Removes every segment, the oldest first: a copy gives up what it has, since it goes on at next_lsn. */
void wal_upkeep_give_up(struct wal_upkeep *upkeep, uint64_t next_lsn);

/* ---- wal_upkeep_drop.c ---- */
/* A copy's log is closed, or is not any more. */
void wal_upkeep_gone(struct wal_upkeep *upkeep, const struct wal_gone *gone);
/* Whether all of a closed copy may go now: no more than its newest segment is left, it is past its retention,
 * or was trimmed by hand up to its end, and nothing holds it. */
bool wal_upkeep_may_drop(struct wal_upkeep *upkeep, struct wal_upkeep_time now);
/* Calls on_drop when that is so. Returns when to look again (real time; INT64_MAX: when something changes).
 * The catalogue is up to date. */
int64_t wal_upkeep_ask_drop(struct wal_upkeep *upkeep, struct wal_upkeep_time now);
/* Something holds the last segment of a closed copy. */
bool wal_upkeep_gone_is_kept(const struct wal_upkeep *upkeep);
/* After the own log was trimmed by its limit of bytes, if it has one. */
void wal_upkeep_tell_horizon(const struct wal_upkeep *upkeep, uint64_t retention_bytes);
/* Segments are about to change, or to go, from the newest on: nothing that is known of them holds any more.
 */
void wal_upkeep_forget(struct wal_upkeep *upkeep);

/* ---- wal_upkeep_scrub.c ---- */
/* A step of the scrubber; returns when the next one is due. */
int64_t wal_upkeep_scrub(struct wal_upkeep *upkeep, struct wal_upkeep_time now);
/* Values are part of the wire format: look_reply.found. */
enum wal_look {
    WAL_LOOK_WHOLE,
    WAL_LOOK_DAMAGED,
    WAL_LOOK_INDEX,   /* whole, but its index was wrong, and is made again */
    WAL_LOOK_NONE,    /* it is not there, or not sealed */
    WAL_LOOK_DIFFERS, /* whole, and its index agrees, but the log's origin has something else */
};
/* Damage was met in a sealed segment, or may be in it: reads all of it, so that the register gets what is
 * damaged. */
enum wal_look wal_upkeep_look(struct wal_upkeep *upkeep, uint64_t base_lsn);
/* A sealed segment of a copy that is whole is not what the log's origin has: enters all of it into the
 * register, to be fetched from there. WAL_LOOK_DIFFERS; WAL_LOOK_NONE: it isn't there. */
enum wal_look wal_upkeep_differs(struct wal_upkeep *upkeep, uint64_t base_lsn);
/* A repair has changed a segment: what the scrubber has in memory of it is old. */
void wal_upkeep_repaired(struct wal_upkeep *upkeep, uint64_t base_lsn);
/* For the scrubber's rounds. */
void wal_upkeep_on_damage(void *upkeep, const struct wal_scrub_damage *damage);
/* 0 or -errno of writing the register of damage, which only a full disk may refuse. */
void wal_upkeep_check(const struct wal_upkeep *upkeep, int result);

/* ---- wal_upkeep_figures.c ---- */
void wal_upkeep_tell_figures(struct wal_upkeep *upkeep);

/* ---- wal_upkeep_info.c ---- */
void wal_upkeep_info(struct wal_upkeep *upkeep, const struct msg_wal_info *ask, struct wal_upkeep_time now,
                     struct buf *answer);
struct wal_retention wal_upkeep_rules(const struct wal_upkeep *upkeep);

#endif
