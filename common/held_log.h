/* A log that a node holds, as walsvc tells of it: one entry of logs_reply. */
#ifndef COMMON_HELD_LOG_H
#define COMMON_HELD_LOG_H

#include "segment_scan.h"

struct held_log {
    struct id16 log;
    struct log_chain durable; /* place of the durable end */
    uint64_t first_lsn;       /* that is left */
    uint64_t damaged;         /* ranges that are neither repaired nor accepted as lost */
};

void held_log_pack(msgpack_packer *pk, const struct held_log *held);
/* The next entry of the array; more parts than are known here are skipped. False: malformed. */
bool held_log_next(struct mp *m, struct held_log *out);

#endif
