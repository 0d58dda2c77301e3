/* The I/O shell of obssvc: what service_main calls. */
#ifndef OBSSVC_OBS_SERVICE_H
#define OBSSVC_OBS_SERVICE_H

#include "service.h"

enum service_exit obs_open(struct service *service);
void obs_close(struct service *service);
const char *obs_ping(const struct service *service);

#endif
