/* The supervisor's process: does what the core decides, and tells it what happens. */
#ifndef SUP_SHELL_H
#define SUP_SHELL_H

#include "sup_spawn.h"

struct sup_options {
    const char *config_file, *node;
    const struct sup_os *os;
};

/* Runs a node until it is stopped or gives up; the result is the process's exit code. */
enum service_exit sup_shell_run(const struct sup_options *options);

#endif
