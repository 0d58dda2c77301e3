/* Failpoints: places where tests make a process fail on purpose. Compiled only with -DSHANGHAI_FAILPOINTS.
 *
 * $SHANGHAI_FAILPOINT="name=action@N,other=action": from the N-th time on (1 by default) that `name` is
 * reached, it answers with the action: skip, fail; at kill the process gets SIGKILL there. */
#ifndef COMMON_FAILPOINT_H
#define COMMON_FAILPOINT_H

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

#endif
