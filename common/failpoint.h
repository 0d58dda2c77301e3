/* Failpoints: places where tests make a process fail on purpose. Compiled only with -DSHANGHAI_FAILPOINTS.
 *
 * $SHANGHAI_FAILPOINT="name=action@N,other=action": from the N-th time on (1 by default) that `name` is
 * reached, it answers with the action: skip, fail; at kill the process gets SIGKILL there. */
#ifndef COMMON_FAILPOINT_H
#define COMMON_FAILPOINT_H

#include <errno.h>

enum failpoint { FAILPOINT_OFF, FAILPOINT_SKIP, FAILPOINT_FAIL, FAILPOINT_KILL };

#ifdef SHANGHAI_FAILPOINTS
/* Counts one arrival. Thread-safe. */
enum failpoint failpoint_hit(const char *name);
/* Replaces what the environment says and starts counting anew; NULL or "" switches all off. For tests in one
 * process. */
void failpoint_set(const char *text);
#else
static inline enum failpoint failpoint_hit(const char *name)
{
    (void)name;
    return FAILPOINT_OFF;
}
#endif

/* Stands behind a step of file calls whose result (0 or -errno) it passes on; a step that succeeded counts as
 * an arrival, and has failed with -EIO when the failpoint says so. */
static inline int failpoint_step(const char *name, int result)
{
    return result == 0 && failpoint_hit(name) == FAILPOINT_FAIL ? -EIO : result;
}

#endif
