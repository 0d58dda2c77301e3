/* Local time by the C library. */
#include "local_time.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "clock.h"

const char *local_time(int64_t real_ns, char out[LOCAL_TIME])
{
    time_t s = (time_t)(real_ns / NS_PER_S);
    struct tm local;
    if (localtime_r(&s, &local) == NULL) {
        snprintf(out, LOCAL_TIME, "%" PRId64, real_ns);
        return out;
    }
    size_t len = strftime(out, LOCAL_TIME - 8, "%Y-%m-%d %H:%M:%S", &local);
    snprintf(out + len, LOCAL_TIME - len, ".%03d", (int)(real_ns / NS_PER_MS % 1000));
    return out;
}
