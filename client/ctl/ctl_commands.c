/* The list of all commands, in the order of the help. */
#include "cmd.h"

const struct ctl_command *const ctl_commands[] = {
    &cmd_append,          &cmd_read,         &cmd_tail,
    &cmd_stream_list,     &cmd_kv_put,       &cmd_kv_get,
    &cmd_kv_del,          &cmd_kv_scan,      &cmd_kv_incr,
    &cmd_kv_txn,          &cmd_kv_watch,     &cmd_cursor_list,
    &cmd_cursor_show,     &cmd_cursor_take,  &cmd_cursor_set,
    &cmd_cursor_delete,   &cmd_view_info,    &cmd_view_digest,
    &cmd_producer_status, &cmd_status,       &cmd_nodes,
    &cmd_replicas,        &cmd_group_of,     &cmd_node_join,
    &cmd_node_leave,      &cmd_top,          &cmd_metrics,
    &cmd_events,          &cmd_svc_tree,     &cmd_svc_restart,
    &cmd_svc_stop,        &cmd_svc_start,    &cmd_svc_obituary,
    &cmd_svc_log_level,   &cmd_log_info,     &cmd_log_trim,
    &cmd_log_verify,      &cmd_log_dump,     &cmd_log_accept_loss,
    &cmd_bench_append,    &cmd_bench_read,   &cmd_bench_kv,
    &cmd_bench_replicate, &cmd_config_check, &cmd_config_show,
    &cmd_shutdown,        &cmd_version,      NULL,
};
