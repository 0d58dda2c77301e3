/* querysvc: the front door. Clients read the log here, and append through it to walsvc. */
#include "query.h"

int main(int argc, char **argv)
{
    static const struct service_type type = {
        .name = "querysvc",
        .summary = "front door of a node: reads of the log, appends passed on, status",
        .open = query_open,
        .close = query_close,
        .ping = query_ping,
    };
    return service_main(argc, argv, &type);
}
