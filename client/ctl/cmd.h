/* The commands: one table row each, beside the code that runs it. */
#ifndef CTL_CMD_H
#define CTL_CMD_H

#include "ctl.h"

extern const struct ctl_command cmd_append;                                        /* cmd_append.c */
extern const struct ctl_command cmd_read, cmd_tail;                                /* cmd_read.c */
extern const struct ctl_command cmd_kv_put, cmd_kv_get, cmd_kv_del, cmd_kv_scan;   /* cmd_kv.c */
extern const struct ctl_command cmd_kv_incr, cmd_kv_txn;                           /* cmd_kv.c */
extern const struct ctl_command cmd_kv_watch;                                      /* cmd_kv_watch.c */
extern const struct ctl_command cmd_cursor_list, cmd_cursor_show, cmd_cursor_take; /* cmd_cursor.c */
extern const struct ctl_command cmd_cursor_set, cmd_cursor_delete;                 /* cmd_cursor.c */
extern const struct ctl_command cmd_view_info, cmd_view_digest;                    /* cmd_view.c */
extern const struct ctl_command cmd_producer_status;                               /* cmd_producer.c */
extern const struct ctl_command cmd_stream_list;                                   /* cmd_stream.c */
extern const struct ctl_command cmd_status;                                        /* cmd_status.c */
extern const struct ctl_command cmd_version, cmd_config_check, cmd_config_show;    /* cmd_node.c */
extern const struct ctl_command cmd_nodes;                                         /* cmd_nodes.c */
extern const struct ctl_command cmd_group_of;                                      /* cmd_group.c */
extern const struct ctl_command cmd_replicas;                                      /* cmd_replicas.c */
extern const struct ctl_command cmd_top;                                           /* cmd_top.c */
extern const struct ctl_command cmd_metrics;                                       /* cmd_metrics.c */
extern const struct ctl_command cmd_node_join, cmd_node_leave;                     /* cmd_join.c */
extern const struct ctl_command cmd_events;                                        /* cmd_events.c */
extern const struct ctl_command cmd_svc_tree, cmd_svc_restart, cmd_svc_stop, cmd_svc_start; /* cmd_svc.c */
extern const struct ctl_command cmd_svc_obituary, cmd_svc_log_level, cmd_shutdown;          /* cmd_svc.c */
extern const struct ctl_command cmd_log_info;                     /* cmd_log_info.c */
extern const struct ctl_command cmd_log_trim;                     /* cmd_log_trim.c */
extern const struct ctl_command cmd_log_accept_loss;              /* cmd_log_loss.c */
extern const struct ctl_command cmd_log_verify, cmd_log_dump;     /* cmd_log.c */
extern const struct ctl_command cmd_bench_append, cmd_bench_read; /* cmd_bench.c */
extern const struct ctl_command cmd_bench_kv;                     /* cmd_bench_kv.c */
extern const struct ctl_command cmd_bench_replicate;              /* cmd_bench_replicate.c */

/* Whether read or tail is about a stream in all logs; then these do it (cmd_stream.c). */
bool ctl_is_of_all_logs(const struct ctl *ctl);
int ctl_stream_read(struct ctl *ctl);
int ctl_stream_tail(struct ctl *ctl);

/* Says why a data directory holds no log that could be read. Not an answer of 1: nothing was looked at. */
int ctl_fail_no_log(const struct ctl *ctl, const char *data);
/* A file call failed; failed_errno 0: it isn't known which error, so that the file is asked again. */
int ctl_fail_path(const struct ctl *ctl, const char *path, int failed_errno);
/* Another version wrote it. */
int ctl_fail_version(const struct ctl *ctl, const char *path);

/* What membersvc or replsvc refused, with what to do about it; returns the exit code. id: whom it was about,
 * or NULL. */
int ctl_fail_member(const struct ctl *ctl, const char *id, enum sh_error error);
/* --log and --node of commands that can be about a copy. */
#define LOG_OPTIONS                                                                                          \
    {"log", 'l', CTL_WORD, "UUID", "a log that the node holds, not its own", 0, 0},                          \
    {                                                                                                        \
        "node", 'N', CTL_WORD, "ID",                                                                         \
            "the log of that member, as the node at the endpoint holds it; without an endpoint, the node "   \
            "of the configuration that is asked",                                                            \
            0, 0                                                                                             \
    }
/* Opens the client, and finds the log: all zero for the node's own. CTL_DONE or an exit code (said). */
int ctl_open_log(const struct ctl *ctl, struct sh_client **client, uint8_t log[16]);
/* NULL for the node's own, as the library wants it. */
const uint8_t *ctl_other_log(const uint8_t log[16]);
/* First and last durable LSN; sh_log_info's errors. */
enum sh_error ctl_log_ends(struct sh_client *client, const uint8_t log[16], uint64_t *first, uint64_t *last);

void ctl_print_replicas(const struct ctl *ctl, const struct sh_replicas *replicas);
/* A table of all nodes; of those that left too, when asked for. */
void ctl_print_nodes(const struct ctl *ctl, const struct sh_nodes *nodes, bool with_left);
/* Red, yellow or green. */
const char *ctl_status_style(const struct ctl *ctl, enum sh_node_status status);

#endif
