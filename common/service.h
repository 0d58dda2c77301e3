/* The skeleton that every daemon uses: its main is a table of what it is and one call to service_main.
 *
 * service_main: arguments (--config FILE --node ID, --help, --version), configuration, logging, signals
 * (blocked and read by signalfd: SIGTERM and SIGINT stop, SIGHUP reloads), the loop, READY=1 by
 * $NOTIFY_SOCKET, clean stop. With $WATCHDOG_USEC set, WATCHDOG=1 goes out four times in it as long as the
 * loop turns, and the service pings its own link each second (self_ping.h); when that is dead (nng #1518),
 * the process ends with EXIT_FAULT, so that the supervisor starts it with a fresh listener. With
 * $SHANGHAI_PARENT_PID set it dies with that parent (PR_SET_PDEATHSIG). */
#ifndef COMMON_SERVICE_H
#define COMMON_SERVICE_H

#include <signal.h>

#include "config.h"
#include "exit_code.h"
#include "link.h"
#include "loop.h"

struct node_identity;
struct vfs;

/* What a running service gets from the skeleton; everything is borrowed for the service's life. */
struct service {
    struct loop *loop;
    struct config *config; /* node, cluster, settings; replaced fields after a reload */
    struct id16 boot;      /* random, new for each process */
    struct slice cluster;  /* cluster id, 8 bytes */
    void *state;           /* the service's own, set by open */
    bool stopping;         /* service_stop was called, with this: */
    enum service_exit code;
};

struct service_type {
    const char *name;    /* "walsvc" */
    const char *summary; /* one line for --help */
    /* Builds the state and starts listening. Anything but EXIT_DONE ends the process with that code; the
     * service has logged why. */
    enum service_exit (*open)(struct service *service);
    /* Settings that are marked reloadable may have changed in service->config. May be NULL. */
    void (*reload)(struct service *service);
    /* Stops and frees everything; called on the loop's thread after the loop has ended. */
    void (*close)(struct service *service);
    /* Endpoint for the self-ping, after open: "ipc:///…/wal"; NULL for none. */
    const char *(*ping)(const struct service *service);
};

/* Sets the level of log lines until the next reload or restart: sent with sigqueue(3) and enum log_level as
 * its value. A process that does not know it ignores it. */
#define SERVICE_LEVEL_SIGNAL SIGURG

int service_main(int argc, char **argv, const struct service_type *type);

/* Ends the process with a clean stop, from a callback on the loop; code as exit status. The first call
 * counts. */
void service_stop(struct service *service, enum service_exit code);
/* The identity that walsvc has made of the data directory. EXIT_FAULT: not yet, or the disk fails;
 * EXIT_CONFIG: damaged, of another format, or of another node. Logged. */
enum service_exit service_identity(const struct service *service, const struct vfs *fs,
                                   struct node_identity *out);
/* STATUS= line for the supervisor, at most 200 bytes. */
void service_status(const char *text);

#endif
