/* obssvc: what the node's daemons tell of themselves, for people and for Prometheus. */
#include "obs_service.h"

int main(int argc, char **argv)
{
    static const struct service_type type = {
        .name = "obssvc",
        .summary = "observability: metrics, events, admin HTTP API, dashboard",
        .open = obs_open,
        .close = obs_close,
        .ping = obs_ping,
    };
    return service_main(argc, argv, &type);
}
