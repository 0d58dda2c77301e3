/* walsvc's shell: link, loop and threads around the core. */
#ifndef WAL_SERVICE_H
#define WAL_SERVICE_H

#include "service.h"

enum service_exit wal_open(struct service *service);
void wal_reload(struct service *service);
void wal_close(struct service *service);
const char *wal_ping(const struct service *service);

#endif
