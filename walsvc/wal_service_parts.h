/* What the files of walsvc's shell share: wal_service.c (requests, threads, life), wal_service_own.c (whether
 * the node's own log is extended, is open as a copy, or gets back what was cut off it), and
 * wal_service_figures.c (what obssvc is told). Everything with the loop's turn. */
#ifndef WAL_SERVICE_PARTS_H
#define WAL_SERVICE_PARTS_H

#include <msgpack.h>

#include "wal_commit.h"
#include "wal_copies.h"
#include "wal_levels.h"
#include "wal_mend.h"
#include "wal_proof.h"
#include "wal_regain.h"
#include "wal_service.h"

struct wal_service {
    struct service *service;
    struct wal_dir dir;
    struct wal_store own; /* the node's own log; its uuid and path only while that is open as a copy */
    struct group_set groups;
    struct wal_core *core;
    struct wal_commit *commit; /* NULL when it has ended, and while the own log is open as a copy */
    struct wal_logs logs;
    struct wal_copies *copies;  /* NULL while there is no link */
    _Atomic int64_t horizon_ns; /* see wal_upkeep.h */
    struct wal_mend *mend;      /* NULL while there is no link, and when the janitors have ended */
    struct link_server *link;
    char endpoint[LINK_ENDPOINT_MAX];
    struct mailbox mailbox;
    struct loop_hook flush;
    struct loop_timer timer;
    struct wal_proof proof;
    struct loop_timer proof_timer;   /* it is over */
    struct wal_frame *first, **last; /* for the committer, at the end of the turn */
    struct buf body;                 /* of the answer being written */
    int64_t durable_ns;              /* when the committer's last news were taken */
    /* The own log: */
    bool is_copy;                     /* it is open as a copy, */
    bool own_is_open;                 /* and served */
    struct wal_given_up given_up;     /* at the start, when it isn't */
    char copy_reason[WAL_REASON_MAX]; /* what those are told who want to change it then */
    enum { OWN_STAYS, OWN_BECOMES_COPY, OWN_COMES_BACK } next_own; /* by the next start */
    bool next_forked;                                              /* the copies are on another chain */
    struct wal_regain *regain;                                     /* NULL: nothing is to be appended again */
    struct loop_timer regain_timer;
};

/* ---- wal_service.c ---- */
void wal_service_refuse(struct wal_service *w, const struct link_request *request, enum sh_error code,
                        const char *text);
void wal_service_set_timer(struct wal_service *w);

/* ---- wal_service_own.c ---- */
/* Reads <data>/boot: before the log is opened, or once there is a new one. */
void wal_service_open_own(struct wal_service *w, bool is_new);
/* It is; since when it was being opened. */
void wal_service_tell_opened(const struct wal_service *w, int64_t started_ns);
/* The log is open, and so are core and loop: appends wait, are taken, or are refused. */
void wal_service_start_own(struct wal_service *w);
/* What replsvc and querysvc want of the node's own log. False: another message. */
bool wal_service_on_own(struct wal_service *w, const struct link_request *request);
/* Whether that is the own log, which is open as a copy; zero is the own one too. */
bool wal_service_is_fetched_back(const struct wal_service *w, struct id16 log);
/* From the copies: how far the own log is durable then. */
void wal_service_on_own_copy(void *service, enum sh_error state, const struct wal_durable *durable);
/* Something has changed that what is appended again may wait for. */
void wal_service_regain(struct wal_service *w);
/* Everything has ended and what was written is durable: tells the next start what it has to open. */
void wal_service_close_own(struct wal_service *w);

/* ---- wal_service_figures.c ---- */
/* For telemetry_on_gather. */
uint32_t wal_service_gather(void *service, msgpack_packer *pk);
/* From the core. */
void wal_service_acknowledged(void *service, enum wal_level wanted, int64_t came_ns);

#endif
