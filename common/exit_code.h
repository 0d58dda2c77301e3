/* Exit codes of every program of ours; the supervisor and the systemd units rely on them. */
#ifndef COMMON_EXIT_CODE_H
#define COMMON_EXIT_CODE_H

enum service_exit {
    EXIT_DONE = 0,
    EXIT_FAULT = 1, /* something failed: the supervisor restarts */
    EXIT_BAD_USAGE = 2,
    EXIT_GAVE_UP = 70, /* shanghaid: restart intensity exceeded at the root */
    EXIT_IN_USE = 75,  /* another process holds the directory: restart later */
    EXIT_CONFIG = 78,  /* configuration error: held down until it is changed */
};

#endif
