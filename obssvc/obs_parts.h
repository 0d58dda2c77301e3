/* obssvc: what its files share.
 *
 *   obs_service.c  birth and death, the link `run/obs`
 *   obs_store.c    what daemons told (pure)
 *   obs_text.c     that as Prometheus' text (pure)
 *   obs_metrics.c  that for clients of the link
 *   obs_http.c     the HTTP server: limits, headers, threads
 *   obs_api.c      what is at its paths */
#ifndef OBSSVC_OBS_PARTS_H
#define OBSSVC_OBS_PARTS_H

#include <pthread.h>

#include "obs_http.h"
#include "obs_store.h"
#include "service.h"

struct obs {
    struct service *service;
    struct link_server *server;
    char endpoint[LINK_ENDPOINT_MAX];
    pthread_mutex_t lock;    /* over the store: the loop writes, HTTP's threads read */
    struct obs_store *store;
    struct obs_http *http; /* NULL: no admin_port */
};

/* ---- obs_metrics.c ---- */
void obs_on_metrics(struct obs *o, const struct link_request *request);

/* ---- obs_api.c ---- */
/* False: the port is taken (logged). Without an admin_port there is nothing to do. */
bool obs_api_open(struct obs *o);
void obs_api_close(struct obs *o);

#endif
