/* The reserve of file descriptors: the soft limit is lifted for a moment, and lowered again. A listener that
 * accepts in that moment takes some of the reserve, which is why it is larger than what a service ever needs
 * at once. */
#include "descriptors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    DESCRIPTORS_RESERVED = 64,
    DESCRIPTORS_OWN = 256, /* beside connections: files, nng's own, sockets of pings */
    PLENTY = 2 * 128 + 4,  /* nng listens with a backlog of 128; both ends of a ping's two connections */
    PLENTY_SHARE = 4,      /* of the limit, a part */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Under the lock: */
static bool limited;
static unsigned lifts;
static rlim_t lowered; /* the soft limit before the first lift */

static rlim_t least(rlim_t a, rlim_t b)
{
    return a < b ? a : b;
}

/* Fails when somebody has lowered the hard limit meanwhile; then nothing changes. */
static void set_soft(struct rlimit limit, rlim_t soft)
{
    limit.rlim_cur = least(soft, limit.rlim_max);
    setrlimit(RLIMIT_NOFILE, &limit);
}

void descriptors_limit(uint64_t connections)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    rlim_t most =
        limit.rlim_max > 2 * DESCRIPTORS_RESERVED ? limit.rlim_max - DESCRIPTORS_RESERVED : limit.rlim_max;
    set_soft(limit, least(connections + DESCRIPTORS_OWN, most));
    limited = true;
}

/* Counted where the kernel lists them: to take them for a moment, to see whether they are there, would take
 * them from others. */
bool descriptors_plenty(void)
{
    struct rlimit limit;
    rlim_t open = 0;
    getrlimit(RLIMIT_NOFILE, &limit);
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL)
        return errno != EMFILE;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        open += entry->d_name[0] != '.';
    closedir(dir);
    return open + least(PLENTY, limit.rlim_cur / PLENTY_SHARE) <= limit.rlim_cur;
}

void descriptors_lift(void)
{
    struct rlimit limit;
    pthread_mutex_lock(&lock);
    if (limited && lifts++ == 0) {
        getrlimit(RLIMIT_NOFILE, &limit);
        lowered = limit.rlim_cur;
        set_soft(limit, lowered + DESCRIPTORS_RESERVED);
    }
    pthread_mutex_unlock(&lock);
}

void descriptors_lower(void)
{
    struct rlimit limit;
    pthread_mutex_lock(&lock);
    if (limited && --lifts == 0) {
        getrlimit(RLIMIT_NOFILE, &limit);
        set_soft(limit, lowered);
    }
    pthread_mutex_unlock(&lock);
}
