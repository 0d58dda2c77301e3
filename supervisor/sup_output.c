/* Lines of the services. Nothing here is fatal: a line that cannot be written is lost and counted. */
#include "sup_output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

static void open_file(struct sup_output *o)
{
    struct stat info;
    o->file = open(o->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (o->file < 0)
        log_warn("a service's log file cannot be opened", log_text("file", o->path),
                 log_text("error", strerror(errno)));
    o->file_bytes = o->file >= 0 && fstat(o->file, &info) == 0 ? (size_t)info.st_size : 0;
}

void sup_output_open(struct sup_output *o, const char *dir, const char *service)
{
    memset(o, 0, sizeof *o);
    snprintf(o->path, sizeof o->path, "%s/%s.log", dir, service);
    open_file(o);
}

void sup_output_close(struct sup_output *o)
{
    if (o->file >= 0)
        close(o->file);
    o->file = -1;
}

void sup_output_begin(struct sup_output *o)
{
    o->line_count = 0;
    o->partial_len = 0;
}

static void rotate(struct sup_output *o)
{
    char old[sizeof o->path + 2];
    snprintf(old, sizeof old, "%s.1", o->path);
    sup_output_close(o);
    if (rename(o->path, old) != 0 && errno != ENOENT) {
        log_warn("a service's log file cannot be rotated", log_text("file", o->path),
                 log_text("error", strerror(errno)));
        return; /* do without from here on, rather than let it grow */
    }
    open_file(o);
}

static void write_file(struct sup_output *o, const char *line, size_t len)
{
    if (o->file >= 0 && o->file_bytes + len > SUP_LOG_FILE_MAX)
        rotate(o);
    if (o->file < 0)
        return;
    ssize_t n = write(o->file, line, len);
    if (n > 0)
        o->file_bytes += (size_t)n;
}

static void pass_on(struct sup_output *o, const char *line, size_t len)
{
    if (write(STDERR_FILENO, line, len) < 0) {
        o->lost++;
    } else if (o->lost > 0) {
        uint64_t lost = o->lost;
        o->lost = 0;
        log_warn("lines of a service were lost: standard error was full", log_text("file", o->path),
                 log_uint("lines", lost));
    }
}

static void keep(struct sup_output *o, const char *line, size_t len)
{
    unsigned slot = o->line_count++ % SUP_LINES_KEPT;
    o->kept[slot].len = len < SUP_LINE_KEPT ? len : SUP_LINE_KEPT;
    memcpy(o->kept[slot].text, line, o->kept[slot].len);
}

/* The line in `partial`, which has room for its newline. */
static void finish_line(struct sup_output *o)
{
    size_t len = o->partial_len;
    o->partial_len = 0;
    keep(o, o->partial, len);
    o->partial[len] = '\n';
    pass_on(o, o->partial, len + 1);
    write_file(o, o->partial, len + 1);
}

void sup_output_feed(struct sup_output *o, const char *data, size_t len)
{
    while (len > 0) {
        const char *newline = memchr(data, '\n', len);
        size_t part = newline != NULL ? (size_t)(newline - data) : len;
        size_t room = SUP_LINE_MAX - o->partial_len;
        size_t taken = part < room ? part : room;
        memcpy(o->partial + o->partial_len, data, taken);
        o->partial_len += taken;
        if (taken == part && newline != NULL)
            taken++;
        else if (taken == len)
            return;
        finish_line(o);
        data += taken;
        len -= taken;
    }
}

void sup_output_end(struct sup_output *o)
{
    if (o->partial_len > 0)
        finish_line(o);
}

unsigned sup_output_kept(const struct sup_output *o)
{
    return o->line_count < SUP_LINES_KEPT ? (unsigned)o->line_count : SUP_LINES_KEPT;
}

struct slice sup_output_line(const struct sup_output *o, unsigned i)
{
    unsigned slot = (unsigned)((o->line_count - sup_output_kept(o) + i) % SUP_LINES_KEPT);
    return slice_of(o->kept[slot].text, o->kept[slot].len);
}

/* O_NONBLOCK belongs to the open file description, which others may share: pipes and terminals are opened
 * afresh, a socket (journald's) is ours alone, and writing to a file doesn't block for long. */
void sup_output_unblock_stderr(void)
{
    struct stat info;
    if (fstat(STDERR_FILENO, &info) != 0)
        return;
    if (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode)) {
        int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd >= 0) {
            dup2(fd, STDERR_FILENO);
            close(fd);
        }
    } else if (S_ISSOCK(info.st_mode)) {
        fcntl(STDERR_FILENO, F_SETFL, fcntl(STDERR_FILENO, F_GETFL) | O_NONBLOCK);
    }
}
