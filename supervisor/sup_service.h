/* One service's process, and what is tied to it: its notify socket, its output, its obituaries. */
#ifndef SUP_SERVICE_H
#define SUP_SERVICE_H

#include "log.h"
#include "loop.h"
#include "sup_obituary.h"
#include "sup_output.h"
#include "sup_report.h"
#include "sup_spawn.h"

/* What all services of a node have in common; borrowed by each. */
struct sup_setting {
    struct loop *loop;
    const struct sup_os *os;
    const char *config_file, *node_id;
    const char *run_dir, *log_dir, *program_dir; /* program_dir: where names of programs are */
    /* What has happened: SUP_EXITED, SUP_READY, SUP_PING. */
    void (*on_event)(void *arg, const struct sup_event *event);
    void *arg;
};

struct sup_service {
    const struct sup_setting *setting;
    const struct tree_node *spec;
    int node; /* its index in the tree */
    bool alive, stranger_told;
    struct sup_process process;
    int64_t born_ns;
    struct loop_fd death, notify,
        output; /* output.fd: -1 once it has ended; death and output only while alive */
    struct sup_output lines;
    char notify_path[CONFIG_PATH_MAX + 32];
    char status[SUP_STATUS_MAX + 1];
};

/* Opens the notify socket and the log file. False: logged. */
bool sup_service_open(struct sup_service *service, const struct sup_setting *setting,
                      const struct tree_node *spec, int node);
/* The process is gone. */
void sup_service_close(struct sup_service *service);
/* 0 or an errno. */
int sup_service_spawn(struct sup_service *service);
void sup_service_kill(struct sup_service *service, int signal);
/* False: it does not run, or not as a process that takes signals. */
bool sup_service_set_log_level(struct sup_service *service, enum log_level level);
/* Takes in what the notify socket holds, so that no notice that has come in time is overlooked. */
void sup_service_listen(struct sup_service *service);
/* The obituary of the life that has just ended. */
void sup_service_obituary(const struct sup_service *service, const struct sup_action *death, int64_t now_ns,
                          struct buf *out);

#endif
