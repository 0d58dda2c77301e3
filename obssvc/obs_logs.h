/* The lines that the supervisor keeps of each service under run_dir/log: JSON objects (common/log.h), up to 2
 * MiB of each service. What is none, as a library's last words, is passed over. */
#ifndef OBSSVC_OBS_LOGS_H
#define OBSSVC_OBS_LOGS_H

#include "json_writer.h"
#include "log.h"

struct config;

enum { OBS_LINES_MAX = 5000 };

struct obs_logs_query {
    uint64_t correlation; /* 0: any */
    const char *service;  /* NULL: all of the tree */
    enum log_level least;
    size_t most; /* the newest; at most OBS_LINES_MAX */
};

/* Appends an array of them, in order of time, as value of `key`. */
void obs_logs_read(const struct config *config, const struct obs_logs_query *query, struct json_writer *j,
                   const char *key);

#endif
