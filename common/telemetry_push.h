/* Tells obssvc once a second what the process has counted, and at once what has happened.
 *
 * One message is under way at most. While nobody takes it, counts go on in memory, events wait in a ring of
 * TELEMETRY_EVENTS, half of it for warnings and errors, and what finds no room there is counted as lost. */
#ifndef COMMON_TELEMETRY_PUSH_H
#define COMMON_TELEMETRY_PUSH_H

#include "log.h"
#include "telemetry.h"

struct service;

enum { TELEMETRY_EVENTS = 256, TELEMETRY_EVENT_BYTES = 1024 };

/* Of the process; called by the skeleton of services. Nothing is sent when the configuration has no obssvc.
 */
void telemetry_push_open(struct service *service, const char *name);
void telemetry_push_close(void);

/* fn appends series (telemetry_gather) and returns how many; on the loop, before each message. Before the
 * loop runs; a handful. */
void telemetry_on_gather(uint32_t (*fn)(void *arg, msgpack_packer *pk), void *arg);

/* Something that whoever runs the node should see: a line of the log, and an event. kind: a word with
 * underscores. From any thread. Fields as log_line has them; text and fields are cut at
 * TELEMETRY_EVENT_BYTES. */
void telemetry_event(enum log_level level, const char *kind, const char *text,
                     const struct log_field *fields);
#define event_info(kind, m, ...)  telemetry_event(LOG_INFO, kind, m, LOG_FIELDS(__VA_ARGS__))
#define event_warn(kind, m, ...)  telemetry_event(LOG_WARN, kind, m, LOG_FIELDS(__VA_ARGS__))
#define event_error(kind, m, ...) telemetry_event(LOG_ERROR, kind, m, LOG_FIELDS(__VA_ARGS__))

#endif
