/* The register of damaged ranges: the file `damage` in the log's folder, and the same in memory.
 *
 * It names what cannot be read, for repair, for `log accept-loss`, for `log info`. It is an aid: a lost or
 * damaged register is replaced by an empty one, and recovery, reads and the scrubber find the damage again.
 * Nothing is ever deleted or cut because of it.
 *
 * All functions may be called from any thread. Ranges are kept in the order of their positions and don't
 * overlap; at most LOG_DAMAGE_MAX, beyond which the two nearest neighbours become one (with the good bytes
 * between them). */
#ifndef WAL_DAMAGE_H
#define WAL_DAMAGE_H

#include "log_damage.h"
#include "segment_scan.h"
#include "shanghai_error.h"
#include "wal_quarantine.h"

struct wal_damage;

/* Reads the register of the log folder `dir`. quarantine: folder for the copies. reserve_bytes: no copy is
 * made when it would leave less room on the disk. SH_OK: *out is to be closed; a missing file is an empty
 * register, a damaged one too, with a warning. SH_VERSION_MISMATCH: of a later format (logged). SH_INTERNAL:
 * a file call failed (logged). */
enum sh_error wal_damage_open(const struct vfs *fs, const char *dir, struct id16 log, const char *quarantine,
                              uint64_t reserve_bytes, struct wal_damage **out);
/* From now on. */
void wal_damage_set_reserve(struct wal_damage *damage, uint64_t reserve_bytes);
/* NULL does nothing. */
void wal_damage_close(struct wal_damage *damage);

/* Enters a range, tells it in the log, copies its bytes to the quarantine (those that the file has), and
 * writes the register. fd: the segment's file, to copy from; -1: there is none. What is known already is not
 * told or copied again; overlapping and touching ranges of one segment become one, which counts as accepted
 * only when nothing new was added to an accepted one. On a full disk the range is entered without a copy, or
 * in memory only, which is told. 0, or -errno of a call that failed otherwise: the caller decides whether
 * that is fatal. */
int wal_damage_add(struct wal_damage *damage, const struct log_damage_range *range, int fd);

/* The bytes [offset, offset + bytes) of the segment are good again; `behind` is the chain behind them. A
 * range they cover goes; of one whose front they cover the rest stays. (A repair that begins in the middle of
 * a range changes nothing.) Writes the register. 0 or -errno. */
int wal_damage_repaired(struct wal_damage *damage, uint64_t base_lsn, uint64_t offset, uint64_t bytes,
                        const struct log_chain *behind);
/* The same, but they were only read: a range that differs from the origin's stays, since what is wrong there
 * no checksum tells. */
int wal_damage_found_good(struct wal_damage *damage, uint64_t base_lsn, uint64_t offset, uint64_t bytes,
                          const struct log_chain *behind);
/* The segments below the LSN are gone, and the ranges in them with them; each is told. Writes the register. 0
 * or -errno. */
int wal_damage_trimmed(struct wal_damage *damage, uint64_t first_lsn);
/* The loss of the ranges whose entries all lie in [first_lsn, next_lsn) is accepted (now_ns since 1970; of
 * one that was accepted before the time stays). *count gets the number of those ranges. Writes the register.
 * 0 or -errno. */
int wal_damage_accept(struct wal_damage *damage, uint64_t first_lsn, uint64_t next_lsn, int64_t now_ns,
                      size_t *count);

/* Whether the loss of all entries in [first_lsn, next_lsn) was accepted; *when_ns: the first time of these.
 */
bool wal_damage_is_accepted(struct wal_damage *damage, uint64_t first_lsn, uint64_t next_lsn,
                            int64_t *when_ns);

/* A copy of all ranges, which the caller frees; NULL when there is none. */
struct log_damage_range *wal_damage_list(struct wal_damage *damage, size_t *count);
/* How many ranges are neither repaired nor accepted as lost. */
size_t wal_damage_open_ranges(struct wal_damage *damage);
/* The first range of the segment that has a byte in [offset, offset + bytes). */
bool wal_damage_find(struct wal_damage *damage, uint64_t base_lsn, uint64_t offset, uint64_t bytes,
                     struct log_damage_range *out);

#endif
