/* shanghaictl: the command line tool. See shanghaictl(1). */
#include "bench_limits.h"
#include "ctl.h"

#include <fcntl.h>

/* Standard streams that were closed stay unusable, instead of becoming whatever is opened next. */
static void keep_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

int main(int argc, char **argv)
{
    keep_standard_streams();
    int code = argc == 3 ? bench_far_end(argv[1], argv[2]) : -1; /* started by `bench` */
    return code >= 0 ? code : ctl_main(argc, argv);
}
