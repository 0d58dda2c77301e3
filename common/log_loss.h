/* The body of a loss frame: which entries of the log were given up for good, and what stood on both sides of
 * them. docs/wal-format.md, "Body of a loss frame". Pure. */
#ifndef COMMON_LOG_LOSS_H
#define COMMON_LOG_LOSS_H

#include "mp.h"

struct log_loss {
    uint64_t first_lsn, last_lsn; /* of the entries */
    uint64_t begin, end;          /* positions: behind the last valid frame before, of the first one behind */
    uint32_t checksum_before;     /* of that frame before; 0 when there was none */
    uint32_t checksum_behind;     /* that the frame behind names as the one before it */
};

void log_loss_encode(const struct log_loss *loss, struct buf *out);
/* False: malformed, or a range that ends before it begins. Unknown keys are skipped. */
bool log_loss_decode(struct slice body, struct log_loss *out);

#endif
