/* The failpoints that are set, a handful at most. A misspelt one is fatal: the test would test nothing. */
#include "failpoint.h"

#ifdef SHANGHAI_FAILPOINTS

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POINTS_MAX = 8 };
struct point {
    char name[32];
    enum failpoint action;
    unsigned long from, hits;
};

static pthread_mutex_t points_lock = PTHREAD_MUTEX_INITIALIZER;
static struct point points[POINTS_MAX];
static unsigned point_count;
static bool points_loaded;

static enum failpoint action_of(const char *name)
{
    static const char *const names[] = {
        [FAILPOINT_SKIP] = "skip", [FAILPOINT_FAIL] = "fail", [FAILPOINT_KILL] = "kill"};
    for (int i = FAILPOINT_SKIP; i <= FAILPOINT_KILL; i++)
        if (strcmp(names[i], name) == 0)
            return (enum failpoint)i;
    return FAILPOINT_OFF;
}

static void parse_point(const char *text)
{
    struct point *p = &points[point_count];
    char action[16];
    *p = (struct point){.from = 1};
    int fields = sscanf(text, "%31[^=]=%15[^@]@%lu", p->name, action, &p->from);
    p->action = fields >= 2 ? action_of(action) : FAILPOINT_OFF;
    if (p->action == FAILPOINT_OFF || point_count == POINTS_MAX - 1) {
        fprintf(stderr, "bad failpoint: %s\n", text);
        abort();
    }
    point_count++;
}

static void load_points(const char *text)
{
    char copy[256], *rest = copy, *part;
    snprintf(copy, sizeof copy, "%s", text != NULL ? text : "");
    point_count = 0;
    points_loaded = true;
    while ((part = strsep(&rest, ",")) != NULL)
        if (*part != 0)
            parse_point(part);
}

enum failpoint failpoint_hit(const char *name)
{
    enum failpoint action = FAILPOINT_OFF;
    pthread_mutex_lock(&points_lock);
    if (!points_loaded)
        load_points(getenv("SHANGHAI_FAILPOINT"));
    for (unsigned i = 0; i < point_count; i++)
        if (strcmp(points[i].name, name) == 0 && ++points[i].hits >= points[i].from)
            action = points[i].action;
    pthread_mutex_unlock(&points_lock);
    if (action == FAILPOINT_KILL)
        kill(getpid(), SIGKILL);
    return action;
}

void failpoint_set(const char *text)
{
    pthread_mutex_lock(&points_lock);
    load_points(text);
    pthread_mutex_unlock(&points_lock);
}

#else
typedef int failpoint_nothing; /* a file needs one declaration */
#endif
