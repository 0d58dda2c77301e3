/* Each service's files are read from their end on, until there are lines enough: within a service they are in
 * order of time, and all that are wanted are among the newest of each. Nothing is fatal: what cannot be read
 * is left out. */
#include "obs_logs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "obs_json.h"

enum { FILE_MAX = (1 << 20) + 4096, LOOKS = 3 };

struct line {
    struct slice text, time;
    size_t service, place; /* the newest of the service has place 0 */
};

struct gather {
    const struct obs_logs_query *query;
    char correlation[64]; /* as it stands in a line; "": any */
    struct line *lines;
    size_t count;
    size_t service, of_service;
};

/* ---------------------------------------------------------------- files */

/* Up to FILE_MAX bytes, which is more than there are. */
static void read_file(int fd, struct buf *out)
{
    ssize_t n = 1;
    while (fd >= 0 && n != 0 && out->len < FILE_MAX) {
        n = read(fd, buf_reserve(out, 64 << 10), 64 << 10);
        if (n < 0 && errno != EINTR)
            return;
        out->len += n > 0 ? (size_t)n : 0;
    }
}

static bool is_same_file(int a, int b)
{
    struct stat x, y;
    return a >= 0 && b >= 0 && fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_ino == y.st_ino;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* The old file and the present one. When they were exchanged in between it is looked again. */
static void open_files(const char *path, int *present, int *old)
{
    char old_path[CONFIG_PATH_MAX + 128];
    snprintf(old_path, sizeof old_path, "%s.1", path);
    *present = *old = -1;
    for (int look = 0; look < LOOKS && (look == 0 || is_same_file(*present, *old)); look++) {
        close_if_open(*present);
        close_if_open(*old);
        *present = open(path, O_RDONLY | O_CLOEXEC);
        *old = open(old_path, O_RDONLY | O_CLOEXEC);
    }
}

static void read_service(const struct config *config, const char *service, struct buf *out)
{
    char path[CONFIG_PATH_MAX + 96];
    int present, old;
    snprintf(path, sizeof path, "%s/log/%s.log", config->run_dir, service);
    open_files(path, &present, &old);
    read_file(old, out);
    out->len = out->len < FILE_MAX ? out->len : FILE_MAX;
    struct buf newest = {0};
    read_file(present, &newest);
    buf_append(out, newest.data, newest.len);
    buf_free(&newest);
    close_if_open(present);
    close_if_open(old);
}

/* ---------------------------------------------------------------- lines */

static bool has_level(struct slice line, enum log_level least)
{
    struct slice level;
    char name[8];
    if (!obs_json_find(line, "level", &level) || !obs_json_text(level, name, sizeof name))
        return false;
    for (enum log_level l = least; l <= LOG_ERROR; l++)
        if (strcmp(name, log_level_name(l)) == 0)
            return true;
    return false;
}

static bool is_wanted(const struct gather *g, struct slice line, struct slice *time)
{
    size_t len = strlen(g->correlation);
    if (len > 0 && memmem(line.data, line.len, g->correlation, len) == NULL)
        return false;
    return obs_json_is_object(line) && obs_json_find(line, "time", time) && has_level(line, g->query->least);
}

static void take_line(struct gather *g, struct slice text)
{
    struct slice time;
    if (is_wanted(g, text, &time))
        g->lines[g->count++] = (struct line){text, time, g->service, g->of_service++};
}

/* The newest first. A last line without its end is still being written. */
static void take_lines(struct gather *g, struct slice text)
{
    size_t end = text.len;
    while (end > 0 && text.data[end - 1] != '\n')
        end--;
    g->of_service = 0;
    while (end > 0 && g->of_service < g->query->most) {
        const uint8_t *before = memrchr(text.data, '\n', end - 1);
        size_t start = before != NULL ? (size_t)(before - text.data) + 1 : 0;
        take_line(g, slice_of(text.data + start, end - 1 - start));
        end = start;
    }
}

static int by_time(const void *first, const void *second)
{
    const struct line *a = first, *b = second;
    size_t len = a->time.len < b->time.len ? a->time.len : b->time.len;
    int order = memcmp(a->time.data, b->time.data, len);
    if (order != 0)
        return order;
    if (a->service != b->service)
        return a->service < b->service ? -1 : 1;
    return a->place > b->place ? -1 : 1;
}

/* ---------------------------------------------------------------- all */

void obs_logs_read(const struct config *config, const struct obs_logs_query *query, struct json_writer *j,
                   const char *key)
{
    struct buf texts[CONFIG_TREE_MAX] = {0};
    struct gather g = {.query = query};
    g.lines = xcalloc(config->tree_count * query->most + 1, sizeof *g.lines);
    if (query->correlation != 0)
        snprintf(g.correlation, sizeof g.correlation, "\"correlation_id\":\"%016" PRIx64 "\"",
                 query->correlation);
    for (size_t i = 0; i < config->tree_count; i++) {
        const struct tree_node *node = &config->tree[i];
        if (node->kind != TREE_SERVICE || (query->service != NULL && strcmp(query->service, node->name) != 0))
            continue;
        g.service = i;
        read_service(config, node->name, &texts[i]);
        take_lines(&g, buf_slice(&texts[i]));
    }
    qsort(g.lines, g.count, sizeof *g.lines, by_time);
    json_open(j, key, '[');
    for (size_t i = g.count > query->most ? g.count - query->most : 0; i < g.count; i++)
        json_raw(j, NULL, g.lines[i].text);
    json_close(j, ']');
    for (size_t i = 0; i < config->tree_count; i++)
        buf_free(&texts[i]);
    free(g.lines);
}
