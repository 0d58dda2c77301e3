/* Inside of the shell. Only sup_shell.c and sup_commands.c include this. */
#ifndef SUP_SHELL_STATE_H
#define SUP_SHELL_STATE_H

#include "sup_control.h"
#include "sup_service.h"
#include "sup_shell.h"

struct sup_shell {
    const struct sup_options *options;
    struct config config;
    struct sup_setting setting;
    char program_dir[CONFIG_PATH_MAX], log_dir[CONFIG_PATH_MAX + 32];
    char obituary_dir[CONFIG_PATH_MAX + 32], control_path[CONFIG_PATH_MAX + 32];
    int data_lock, run_lock;
    struct loop *loop;
    struct loop_fd signals;
    struct loop_timer tick, ping; /* ping: systemd's watchdog */
    int64_t ping_ns;              /* 0: systemd doesn't ask for it */
    struct sup_control *control;
    struct sup_core *core;
    struct sup_service *services; /* one for each node of the tree; unused for supervisors */
    int failed[SUP_NODES_MAX];    /* services that could not be spawned, still to be told to the core */
    int failed_count;
    char summary[SUP_STATUS_MAX + 1]; /* as systemd knows it */
    bool up;                          /* systemd knows that the node is ready */
    enum service_exit code;
};

/* One step of the core and its actions. SH_OK, or why a command was refused: then *text is a static string
 * (text may be NULL). */
enum sh_error sup_shell_step(struct sup_shell *shell, const struct sup_event *event, const char **text);
/* Loads the configuration afresh, as by SIGHUP. False: it has errors and is not taken over. Appends to *text
 * what was done, or the errors. */
bool sup_shell_reload(struct sup_shell *shell, struct buf *text);

/* A command of the control socket. */
void sup_on_command(void *shell, uint64_t correlation, const struct msg_svc_command *command,
                    struct sup_reply *reply);

#endif
