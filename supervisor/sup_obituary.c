/* Obituaries on disk. A file is named <ns since 1970, 20 digits>-<service>.obituary; others are left alone.
 * Nothing is fatal. */
#include "sup_obituary.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "sup_report.h"

enum { TIME_DIGITS = 20, OBITUARY_PATH_MAX = CONFIG_PATH_MAX + 256 + 16 };

static const char suffix[] = ".obituary";

/* ------------------------------------------------------------ encoding */

static void pack_lines(msgpack_packer *pk, const struct sup_output *output)
{
    unsigned count = sup_output_kept(output);
    msgpack_pack_array(pk, count);
    for (unsigned i = 0; i < count; i++)
        mp_pack_str(pk, sup_output_line(output, i));
}

void sup_obituary_encode(const struct sup_obituary *o, struct buf *out)
{
    char cause[SUP_EXIT_TEXT];
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_map(&pk, 10);
    sup_pack_text(&pk, "service", o->service);
    sup_pack_number(&pk, "time_ms", (uint64_t)(o->time_ns / NS_PER_MS));
    sup_pack_number(&pk, "pid", (uint64_t)o->pid);
    sup_pack_text(&pk, "cause", sup_exit_text(o->cause, &o->exit, cause));
    sup_pack_number(&pk, "exit_code", o->exit.signalled ? 0 : (uint64_t)o->exit.code);
    sup_pack_number(&pk, "signal", o->exit.signalled ? (uint64_t)o->exit.code : 0);
    mp_pack_cstr(&pk, "core");
    if (o->exit.core)
        msgpack_pack_true(&pk);
    else
        msgpack_pack_false(&pk);
    sup_pack_number(&pk, "uptime_ms", (uint64_t)(o->uptime_ns / NS_PER_MS));
    sup_pack_number(&pk, "restarts", o->restarts);
    mp_pack_cstr(&pk, "lines");
    pack_lines(&pk, o->output);
}

/* ------------------------------------------------------------ files */

static int is_obituary(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name), tail = sizeof suffix - 1;
    return len > TIME_DIGITS + 1 + tail && strspn(entry->d_name, "0123456789") == TIME_DIGITS &&
           entry->d_name[TIME_DIGITS] == '-' && strcmp(entry->d_name + len - tail, suffix) == 0;
}

/* The names, the oldest first; free each and the array. -1 when the directory cannot be read. */
static int list_names(const char *dir, struct dirent ***names)
{
    int count = scandir(dir, names, is_obituary, alphasort);
    if (count < 0)
        log_warn("obituaries cannot be listed", log_text("dir", dir), log_text("error", strerror(errno)));
    return count;
}

static void free_names(struct dirent **names, int count)
{
    for (int i = 0; i < count; i++)
        free(names[i]);
    if (count >= 0)
        free(names);
}

/* A time behind all that are there, so that their order is that of the deaths also when the clock was set
 * back. */
static int64_t next_time_ns(struct dirent **names, int count, int64_t now_ns)
{
    int64_t newest_ns = count > 0 ? strtoll(names[count - 1]->d_name, NULL, 10) : 0;
    return now_ns <= newest_ns && newest_ns < INT64_MAX ? newest_ns + 1 : now_ns;
}

static bool write_file(const char *path, struct slice bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    ssize_t n = write(fd, bytes.data, bytes.len);
    if (n >= 0 && (size_t)n < bytes.len) {
        n = -1;
        errno = ENOSPC;
    }
    int error = errno;
    close(fd);
    errno = error;
    return n >= 0;
}

bool sup_obituary_write(const char *dir, const char *service, int64_t time_ns, struct slice encoded)
{
    char path[OBITUARY_PATH_MAX], temporary[OBITUARY_PATH_MAX];
    struct dirent **names;
    int count = list_names(dir, &names);
    time_ns = next_time_ns(names, count, time_ns);
    snprintf(temporary, sizeof temporary, "%s/next.tmp", dir);
    snprintf(path, sizeof path, "%s/%020lld-%s%s", dir, (long long)time_ns, service, suffix);
    bool good = write_file(temporary, encoded) && rename(temporary, path) == 0;
    if (!good)
        log_error("an obituary cannot be written", log_text("file", path),
                  log_text("error", strerror(errno)));
    for (int i = 0; good && i <= count - SUP_OBITUARIES_KEPT; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
        unlink(path);
    }
    free_names(names, count);
    return good;
}

/* ------------------------------------------------------------ listing */

static bool read_file(const char *path, struct buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return false;
    out->len = 0;
    ssize_t n = read(fd, buf_reserve(out, SUP_OBITUARY_MAX + 1), SUP_OBITUARY_MAX + 1);
    close(fd);
    if (n > 0)
        out->len = (size_t)n;
    return n > 0 && n <= SUP_OBITUARY_MAX;
}

/* Whether the bytes are one obituary, of this service. */
static bool matches(struct slice bytes, struct slice service)
{
    struct mp m = mp_of(bytes), whole = m;
    uint32_t count;
    struct slice key, value;
    if (!mp_skip(&whole) || !mp_at_end(&whole) || !mp_map(&m, &count) || count == 0)
        return false;
    if (!mp_str(&m, &key) || !slice_is(key, "service") || !mp_str(&m, &value))
        return false;
    return service.len == 0 || slice_equal(service, value);
}

unsigned sup_obituary_list(const char *dir, struct slice service, unsigned limit, size_t max_bytes,
                           struct buf *out)
{
    struct dirent **names;
    char path[OBITUARY_PATH_MAX];
    struct buf all = {0}, one = {0};
    unsigned found = 0;
    int count = list_names(dir, &names);
    for (int i = count - 1; i >= 0 && found < limit; i--) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
        if (!read_file(path, &one) || !matches(buf_slice(&one), service))
            continue;
        if (all.len + one.len > max_bytes)
            break;
        buf_append(&all, one.data, one.len);
        found++;
    }
    free_names(names, count);
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, found);
    mp_pack_raw(&pk, buf_slice(&all));
    buf_free(&all);
    buf_free(&one);
    return found;
}
