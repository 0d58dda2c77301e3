/* shanghaictl: the command line tool. See shanghaictl(1). */
#include "bench_limits.h"
#include "ctl.h"

#include <string.h>

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "bench-echo") == 0) /* started by `bench` as its far end */
        return bench_echo(argv[2]);
    return ctl_main(argc, argv);
}
