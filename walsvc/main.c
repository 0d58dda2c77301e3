/* walsvc: the only writer of logs, the node's own and copies of others'. Appends, made durable in groups;
 * durable watermarks by long poll. */
#include "wal_service.h"

int main(int argc, char **argv)
{
    static const struct service_type type = {
        .name = "walsvc",
        .summary = "the only writer of a node's log: durable appends, watermarks",
        .open = wal_open,
        .reload = wal_reload,
        .close = wal_close,
        .ping = wal_ping,
    };
    return service_main(argc, argv, &type);
}
