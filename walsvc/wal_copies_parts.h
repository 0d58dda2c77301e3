/* Inside of the set of copies: wal_copies.c, and what becomes of closed logs, wal_copies_gone.c. */
#ifndef WAL_COPIES_PARTS_H
#define WAL_COPIES_PARTS_H

#include "wal_copies.h"

struct copy {
    struct wal_copies *set;
    struct id16 log;
    struct wal_copier *copier; /* NULL: the slot is free */
    size_t index;              /* in logs */
    bool told;                 /* it has told once how it is */
    bool drops;                /* it is being dropped, or turns out to stay: nothing more is asked of it */
    enum sh_error state;
};

struct wal_copies {
    struct wal_copies_options options;
    struct mailbox mailbox;
    struct copy all[WAL_LOGS_MAX];
    bool has_stopped;
};

/* NULL: none. */
struct copy *wal_copies_copy(struct wal_copies *copies, struct id16 log);
void wal_copies_refuse(const struct wal_copies *copies, struct link_token token,
                       const struct wal_refusal *refusal);

/* ---- wal_copies_gone.c ---- */
/* At the start: the folder of a log that is in the register of closed logs goes. False: it isn't. */
bool wal_copies_drop_rest(struct wal_copies *copies, struct id16 log);
/* The copier has done with wal_copier_drop. */
void wal_copies_dropped(struct copy *copy, const struct wal_copy_news *news);

#endif
