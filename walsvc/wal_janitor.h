/* The janitor: the slow thread that trims, keeps the register of holds, scrubs, answers questions about that
 * (wal_upkeep.h), and does what else changes or reads sealed segments, as repairs do (wal_mend.h): so none of
 * these ever meets another. It touches nothing that an append needs: no append ever waits for it, and it
 * waits for none. Without anything to do it sleeps. */
#ifndef WAL_JANITOR_H
#define WAL_JANITOR_H

#include "wal_upkeep.h"

enum { WAL_JANITOR_JOBS = 1024, WAL_JANITOR_REQUEST_MAX = 4096 };

struct wal_janitor;

struct wal_janitor_options {
    struct wal_upkeep *upkeep; /* open; the janitor's until wal_janitor_stop */
    atomic_bool *stop;         /* the one that the upkeep's options name; false */
    /* The answer to a request, on the janitor's thread; *body is taken over. Not called for those that were
     * still waiting at wal_janitor_stop. */
    void (*on_answer)(void *arg, struct link_token token, uint32_t type, struct buf *body);
    void *arg;
};

/* Something to be done between the janitor's own steps; the caller's until then. work is called once, on the
 * janitor's thread, and may give the task back or free it; drop, unless NULL, in its place when the janitor
 * has ended before. */
struct wal_task {
    struct wal_task *next; /* the janitor's */
    void (*work)(struct wal_task *task);
    void (*drop)(struct wal_task *task);
};

struct wal_janitor *wal_janitor_start(const struct wal_janitor_options *options);
/* Asks for an answer to log_trim, hold, wal_info or look; the request is copied. SH_OVERLOADED: too many
 * wait. SH_TOO_LARGE. */
enum sh_error wal_janitor_ask(struct wal_janitor *janitor, struct link_token token, uint32_t type,
                              struct slice request);
/* Puts a task behind those that wait. Who calls bounds their number. From any thread. */
void wal_janitor_do(struct wal_janitor *janitor, struct wal_task *task);
/* Damage was met in a sealed segment, which is read for the register (see wal_upkeep_look); when too much
 * else waits, the scrubber finds it later. From any thread. */
void wal_janitor_look(struct wal_janitor *janitor, uint64_t base_lsn);
/* What the preparer says of the next segment. After a roll it is a reason to look at retention. From any
 * thread. */
void wal_janitor_next(struct wal_janitor *janitor, enum wal_next next);
void wal_janitor_set(struct wal_janitor *janitor, const struct wal_upkeep_settings *settings);
/* Whether the log is closed; see wal_upkeep_gone. */
void wal_janitor_gone(struct wal_janitor *janitor, const struct wal_gone *gone);
/* Ends the thread within one step: a quarter MiB read, a segment removed, a task. What waits is not done. */
void wal_janitor_stop(struct wal_janitor *janitor);

#endif
