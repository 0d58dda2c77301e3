/* membersvc: who is in the cluster, and who is alive. */
#include "member_service.h"

int main(int argc, char **argv)
{
    static const struct service_type type = {
        .name = "membersvc",
        .summary = "members of the cluster: who is in it, who is alive",
        .open = member_open,
        .reload = member_reload,
        .close = member_close,
        .ping = member_ping,
    };
    return service_main(argc, argv, &type);
}
