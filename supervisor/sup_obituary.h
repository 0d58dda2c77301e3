/* Obituaries: one msgpack map in a file of its own for each death, in data_dir/obituaries, the newest kept.
 *
 * {service: str, time_ms: uint (since 1970), pid: uint, cause: str, exit_code: uint, signal: uint (0: none),
 *  core: bool, uptime_ms: uint, restarts: uint, lines: [str]}
 *
 * Written without a sync, by rename: a death must not wait for the disk. They outlive every process, but the
 * last ones may be lost with the machine's power. */
#ifndef SUP_OBITUARY_H
#define SUP_OBITUARY_H

#include "sup_core.h"
#include "sup_output.h"

enum { SUP_OBITUARIES_KEPT = 100, SUP_OBITUARY_MAX = 32 << 10 };

struct sup_obituary {
    const char *service;
    int64_t time_ns; /* since 1970 */
    pid_t pid;
    enum sup_cause cause;
    struct sup_exit exit;
    int64_t uptime_ns;
    uint32_t restarts;
    const struct sup_output *output;
};

void sup_obituary_encode(const struct sup_obituary *obituary, struct buf *out);
/* Adds one and removes the oldest beyond SUP_OBITUARIES_KEPT. False: it could not be written (logged). */
bool sup_obituary_write(const char *dir, const char *service, int64_t time_ns, struct slice encoded);
/* Appends an array of them, the newest first: at most `limit`, of one service unless `service` is empty, as
 * long as they fit into max_bytes. Files that are no whole obituaries are passed over. Returns how many. */
unsigned sup_obituary_list(const char *dir, struct slice service, unsigned limit, size_t max_bytes,
                           struct buf *out);

#endif
