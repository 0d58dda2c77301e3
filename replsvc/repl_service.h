/* replsvc as a service, for main.c. */
#ifndef REPL_SERVICE_H
#define REPL_SERVICE_H

#include "service.h"

enum service_exit repl_open(struct service *service);
void repl_close(struct service *service);
const char *repl_ping(const struct service *service);

#endif
