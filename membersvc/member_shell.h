/* membersvc's shell: what its files share. One loop thread owns everything.
 *
 *   member_service.c  birth and death, settings
 *   member_turn.c     the core's time, messages, notices, state: what each turn of the loop ends with
 *   member_link.c     its link: nodes, joins, leaves, events
 *   member_wal.c      the link to walsvc: watermarks of all logs, the permit to write
 *   member_file.c     data/member
 *   member_figures.c  what obssvc is told */
#ifndef MEMBER_SHELL_H
#define MEMBER_SHELL_H

#include "log_reader.h"
#include "member_core.h"
#include "member_file.h"
#include "pipeline.h"
#include "service.h"

enum { MEMBER_STATUS_TEXT = 128 };

/* A request whose answer waits: for its state to be on disk, or for events (with which a view is new). */
struct member_waiter {
    struct member_waiter *next;
    struct link_token token;
    bool nodes;       /* it asks for the nodes, once there are events behind `after` */
    uint64_t version; /* join, leave: to be on disk; 0: events, with these: */
    uint64_t after, most;
    int64_t due_ns;
    uint32_t type; /* join, leave: of the answer, whose bytes follow */
    size_t len;
    uint8_t body[];
};

struct member_service {
    struct service *service;
    const struct vfs *fs;
    struct node_identity identity;
    struct member_core *core;
    struct pipeline_in *in;
    struct pipeline_out *out;
    struct loop_timer tick;
    struct loop_hook hook;
    char status[MEMBER_STATUS_TEXT];

    struct member_file *file;
    struct loop_timer write_again;
    bool full;        /* the disk was, at the last write */
    bool wrote;       /* a first write was tried: nothing is sent before */
    uint64_t writing; /* version that is being written, and its next event */
    uint64_t writing_next_event;
    uint64_t on_disk; /* the same, of what is on disk */
    uint64_t on_disk_next_event;

    struct link_server *server;
    char link[LINK_ENDPOINT_MAX], wal_link[LINK_ENDPOINT_MAX];
    struct member_waiter *waiters;
    struct loop_timer due; /* of the events' waiters */
    struct buf body;       /* scratch */

    struct link_client *wal;
    uint64_t watch, permit; /* numbers of requests; 0: none is out */
    bool permit_is_due;     /* it was not told since the link was connected */
    bool may_write;         /* what walsvc was told last */
    struct id16 wal_boot;   /* and version, of the newest news of the logs */
    uint64_t logs_version;
    struct loop_timer watch_again;
};

/* ---- member_turn.c ---- */
struct member_time member_now(void);
/* Time and the core's own state come to it from here on. */
void member_turn_open(struct member_service *m);
void member_turn_close(struct member_service *m);
void member_on_message(void *arg, struct slice message);

/* ---- member_figures.c ---- */
/* For telemetry_on_gather. */
uint32_t member_figures_gather(void *service, msgpack_packer *pk);

/* ---- member_link.c ---- */
enum service_exit member_link_open(struct member_service *m);
void member_link_close(struct member_service *m);
/* Answers what waited for the state on disk. */
void member_link_answer(struct member_service *m);

/* ---- member_wal.c ---- */
enum sh_error member_wal_open(struct member_service *m);
void member_wal_close(struct member_service *m);
/* Tells walsvc when the permit to write changes. */
void member_wal_turn(struct member_service *m);

#endif
