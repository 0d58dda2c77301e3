/* obssvc: what its files share.
 *
 *   obs_service.c  birth and death, the link `run/obs`
 *   obs_store.c    what daemons told (pure)
 *   obs_text.c     that as Prometheus' text (pure)
 *   obs_metrics.c  that for clients of the link
 *   obs_http.c     the HTTP server: limits, headers, threads
 *   obs_poll*.c    what the node and its supervisor say; kept
 *   obs_tree.c     what has changed in the tree of services (pure)
 *   obs_history.c  the last 15 minutes (pure)
 *   obs_sample.c   each second a point of these, and the metrics of obssvc itself
 *   obs_json.c     JSON that is read (pure)
 *   obs_token.c    who may change something
 *   obs_logs.c     lines of run/log
 *   obs_api*.c     what is at the paths
 *   obs_page.c     the dashboard (page/) */
#ifndef OBSSVC_OBS_PARTS_H
#define OBSSVC_OBS_PARTS_H

#include <pthread.h>

#include "obs_history.h"
#include "obs_http.h"
#include "obs_poll.h"
#include "obs_store.h"
#include "service.h"

struct obs {
    struct service *service;
    struct link_server *server;
    char endpoint[LINK_ENDPOINT_MAX];
    pthread_mutex_t lock; /* over store and history: HTTP's threads read, the loop and the poller write */
    struct obs_store *store;
    struct obs_history *history;
    struct loop_timer timer; /* of its points */
    struct obs_poll *poll;
    struct obs_http *http; /* NULL: no admin_port */
    int64_t since_ms;      /* when it was started, since 1970 */
};

/* ---- obs_metrics.c ---- */
void obs_on_metrics(struct obs *o, const struct link_request *request);

/* Adds an event that was seen here. From any thread. */
void obs_tell(struct obs *o, const struct obs_event *event);

/* ---- obs_sample.c ---- */
void obs_sample_open(struct obs *o);
void obs_sample_close(struct obs *o);

/* ---- obs_api.c ---- */
/* False: the port is taken (logged). Without an admin_port there is nothing to do. */
bool obs_api_open(struct obs *o);
void obs_api_close(struct obs *o);

#endif
