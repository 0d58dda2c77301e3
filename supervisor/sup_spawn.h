/* Birth and death of a service's process.
 *
 * A child gets standard input from /dev/null, standard output and error in one pipe, and no other descriptor;
 * a session of its own; no blocked or ignored signal; SIGKILL when this process dies. */
#ifndef SUP_SPAWN_H
#define SUP_SPAWN_H

#include <stdint.h>
#include <sys/types.h>

#include "sup_core.h"

/* The calls that can fail for want of resources: tests put their own in. */
struct sup_os {
    pid_t (*fork)(void);
    int (*pidfd_open)(pid_t pid, unsigned flags);
};
const struct sup_os *sup_os_linux(void);

struct sup_program {
    const char *path;
    const char *const *arguments; /* argv, NULL at the end */
    const char *notify_socket;
    int64_t watchdog_ns; /* 0: none */
};

struct sup_process {
    pid_t pid;
    int pidfd;  /* readable when the process has ended */
    int output; /* the pipe's end to read, O_NONBLOCK */
};

/* 0, or an errno: nothing is left behind then. A program that cannot be executed is no error here: the
 * process says so on its standard error and ends with EXIT_CONFIG (no such program) or EXIT_FAULT. The caller
 * closes both descriptors, pidfd by sup_reap. */
int sup_spawn(const struct sup_os *os, const struct sup_program *program, struct sup_process *out);

/* Kills what the ended process has left of its session's first process group, collects its status, closes
 * pidfd. */
struct sup_exit sup_reap(const struct sup_process *process);

#endif
