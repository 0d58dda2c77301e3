/* replsvc: copies logs between nodes. */
#include "repl_service.h"

int main(int argc, char **argv)
{
    static const struct service_type type = {
        .name = "replsvc",
        .summary = "replication: copies the logs of the group's nodes",
        .open = repl_open,
        .close = repl_close,
        .ping = repl_ping,
    };
    return service_main(argc, argv, &type);
}
