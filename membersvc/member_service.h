/* membersvc's shell: what the core (member_core.h) gets its time, messages and disk from. */
#ifndef MEMBER_SERVICE_H
#define MEMBER_SERVICE_H

#include "service.h"

enum service_exit member_open(struct service *service);
void member_reload(struct service *service);
void member_close(struct service *service);
const char *member_ping(const struct service *service);

#endif
