/* shanghaid: starts, watches and restarts the services of one node. No threads, no nng: fork is safe here. */
#include "sup_arguments.h"

int main(int argc, char **argv)
{
    struct sup_options options = {.os = sup_os_linux()};
    int code = sup_arguments(argc, argv, &options);
    return code >= 0 ? code : (int)sup_shell_run(&options);
}
