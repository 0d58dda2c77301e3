/* Logging: one JSON object a line on stderr, written with one write(2).
 *
 * {"time":"2026-01-31T12:00:00.123456Z","level":"info","service":"walsvc","node":"n1","pid":7,"msg":"...",
 *  "correlation_id":"00f3...", <fields>}
 * Thread-safe. Of lines with the same msg and the same texts LOG_REPEATS are written in LOG_REPEAT_NS, then
 * none until that time is over; the next one says in "suppressed" how many were left out. Of debug lines all
 * are written. */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdint.h>

#include "buf.h"

enum { LOG_REPEATS = 100 };
#define LOG_REPEAT_NS (10 * INT64_C(1000000000))

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Set once at start; both are copied. */
void log_setup(const char *service, const char *node);
/* From any thread, at any time. */
void log_set_level(enum log_level level);
bool log_is_on(enum log_level level);
const char *log_level_name(enum log_level level);

/* A field of a line: {"offset", .kind = LOG_UINT, .number = 7}; use the makers below. */
struct log_field {
    const char *name;
    enum { LOG_END, LOG_TEXT, LOG_SLICE, LOG_NUMBER, LOG_UNSIGNED } kind;
    const char *text;
    struct slice slice;
    int64_t number;
    uint64_t unsigned_number;
};

struct log_field log_text(const char *name, const char *text);
struct log_field log_slice(const char *name, struct slice text);
struct log_field log_int(const char *name, int64_t number);
struct log_field log_uint(const char *name, uint64_t number);

/* correlation 0 means none. fields ends with one of kind LOG_END. */
void log_line(enum log_level level, uint64_t correlation, const char *msg, const struct log_field *fields);

/* log_info("segment sealed", log_uint("lsn", 7), log_text("file", name)); */
#define LOG_FIELDS(...)   ((const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){.kind = LOG_END}})
#define log_debug(m, ...) log_line(LOG_DEBUG, 0, m, LOG_FIELDS(__VA_ARGS__))
#define log_info(m, ...)  log_line(LOG_INFO, 0, m, LOG_FIELDS(__VA_ARGS__))
#define log_warn(m, ...)  log_line(LOG_WARN, 0, m, LOG_FIELDS(__VA_ARGS__))
#define log_error(m, ...) log_line(LOG_ERROR, 0, m, LOG_FIELDS(__VA_ARGS__))
/* The same for a request that is known by its correlation id. Often on a hot path: when the level is off, the
 * fields are not even made, so they must have no side effects. */
#define log_for(level, correlation, m, ...)                                                                  \
    (log_is_on(level) ? log_line(level, correlation, m, LOG_FIELDS(__VA_ARGS__)) : (void)0)

/* Appends text as a JSON string, quotes included; bytes that are not UTF-8 become U+FFFD. */
void json_string(struct buf *out, struct slice text);
/* Whether the bytes are well-formed UTF-8 (RFC 3629). */
bool utf8_valid(struct slice text);

#endif
