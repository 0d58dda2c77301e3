/* What may be given up: entries that cannot be read, all of them that are missing in one place, and none that
 * can be read. The search is pure (wal_loss_feed is given the log's valid frames in order); wal_loss_find
 * feeds it from the files.
 *
 *   ... frame │ lost: first_lsn to last_lsn, positions begin to end │ frame (of whatever kind) ... data frame
 */
#ifndef WAL_LOSS_H
#define WAL_LOSS_H

#include "log_loss.h"
#include "segment_scan.h"
#include "wal_repair_check.h"

struct wal_loss_search {
    uint64_t first, last;        /* LSNs that are to be given up */
    bool has_before, has_behind; /* a frame below `first` was seen; one behind a gap */
    struct log_chain before;     /* behind the last frame below `first` */
    struct log_chain run;        /* behind the last frame fed */
    struct log_chain behind;     /* at the first frame of the run that was fed last */
    bool is_readable;            /* an entry of the range was fed: */
    uint64_t readable_lsn;
};

void wal_loss_search_open(struct wal_loss_search *search, uint64_t first, uint64_t last);
/* A valid frame at this position. False: no more are needed. */
bool wal_loss_feed(struct wal_loss_search *search, const struct frame_header *h, uint64_t position);
/* All have been fed. first_of_log: the first LSN that the log begins with. SH_OK: *out is what a loss frame
 * says. SH_CONFLICT: an entry of the range can be read, or more than the range is missing there. */
enum sh_error wal_loss_judge(const struct wal_loss_search *search, uint64_t first_of_log,
                             struct log_loss *out, struct wal_refusal *refusal);

/* A lost range as the register of damage names it. */
struct wal_loss_place {
    uint64_t base_lsn, offset; /* the segment in whose file it begins, and where */
};

/* The whole question, on the files. durable_lsn: of the last durable entry. Beside those of wal_loss_judge:
 * SH_BAD_REQUEST, SH_TRIMMED (expected: the first LSN left), SH_NOT_FOUND: the log ends before. SH_INTERNAL:
 * a file could not be read, logged. Reads from the segment before the range to the first entry behind it. */
enum sh_error wal_loss_find(const struct vfs *fs, const char *data_dir, const char *log_dir, struct id16 log,
                            uint64_t first, uint64_t last, uint64_t durable_lsn, struct log_loss *out,
                            struct wal_loss_place *place, struct wal_refusal *refusal);

#endif
