/* make_log DATA_DIR BYTES: a log of that size for node n1, made by walsvc's own code in a second or two.
 *
 * Nothing is synced, and zeros are left out of the files, whose payloads are zeros but for the newest
 * segment's: so 10 GiB take some 500 MiB on the disk. The newest segment is nearly full of small frames,
 * which is the most that a start has to read. Prints a line of JSON. What goes wrong is fatal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "segment_index.h"
#include "wal_rig.h"

enum { SEGMENT = 64 << 20, LARGE = 240 << 10, SMALL = 128, BATCH = 100, LAST_BYTES = 60 << 20, PAGE = 4096 };

static int no_sync(const struct vfs *fs, int fd)
{
    (void)fs, (void)fd;
    return 0;
}

static int no_sync_dir(const struct vfs *fs, const char *path)
{
    (void)fs, (void)path;
    return 0;
}

static int grow(int fd, int64_t size)
{
    struct stat about;
    return fstat(fd, &about) == 0 && about.st_size < size ? ftruncate(fd, size) : 0;
}

static bool is_zero(const uint8_t *p, size_t len)
{
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* Writes what isn't zero, by pieces of a page. */
static int write_sparse(int fd, const uint8_t *p, size_t len, int64_t offset)
{
    for (size_t at = 0, piece; at < len; at += piece) {
        piece = len - at < PAGE ? len - at : PAGE;
        if (!is_zero(p + at, piece) && pwrite(fd, p + at, piece, offset + (int64_t)at) != (ssize_t)piece)
            return -1;
    }
    return grow(fd, offset + (int64_t)len);
}

static ssize_t sparse_pwritev(const struct vfs *fs, int fd, const struct iovec *iov, int count,
                              int64_t offset)
{
    (void)fs;
    ssize_t total = 0;
    for (int i = 0; i < count; total += (ssize_t)iov[i++].iov_len)
        if (write_sparse(fd, iov[i].iov_base, iov[i].iov_len, offset + total) < 0)
            return -EIO;
    return total;
}

static struct vfs fs;
static struct wal_rig rig;

static void append(struct slice payload, uint32_t count)
{
    rig.now_ns += NS_PER_MS;
    uint64_t number = rig_append_many(&rig, 0, 0, payload, count);
    bool good = rig_commit(&rig);
    assert(good && rig.answers[number].code == SH_OK);
    buf_free(&rig.bodies[number]);
    rig.answers[number] = (struct rig_answer){0};
    rig.requests = 0;
}

/* Until the log is so long, and then until the newest segment is new. */
static void fill(uint64_t bytes)
{
    uint8_t *zeros = xcalloc(1, LARGE);
    while (rig.log.durable.end + LAST_BYTES < bytes)
        append(slice_of(zeros, LARGE), 1);
    for (uint64_t base = rig.log.segment.base_lsn; rig.log.segment.base_lsn == base && bytes > SEGMENT;)
        append(slice_of(zeros, LARGE), 1);
    free(zeros);
    uint8_t small[SMALL];
    for (unsigned i = 0; i < sizeof small; i++)
        small[i] = (uint8_t)(i * 37 + 1);
    while (rig.log.offset < LAST_BYTES)
        append(slice_of(small, sizeof small), BATCH);
}

static int64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* Returns the processor time that it took, in ns. */
static int64_t make_indexes(void)
{
    uint64_t *bases;
    size_t count;
    bool done;
    int64_t began_ns = cpu_ns();
    int result = segment_list(&fs, rig.dir.log, &bases, &count);
    assert(result == 0);
    for (size_t i = 0; i + 1 < count; i++) {
        struct segment_indexer *x;
        enum sh_error error =
            segment_indexer_open(&fs, rig.dir.log, rig.dir.identity.log, bases[i], bases[i + 1], &x);
        assert(error == SH_OK);
        error = segment_indexer_step(x, UINT64_MAX / 2, &done);
        result = error == SH_OK && done ? segment_indexer_write(x) : -1;
        assert(result == 0);
        segment_indexer_close(x);
    }
    free(bases);
    return cpu_ns() - began_ns;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: make_log DATA_DIR BYTES\n");
        return 2;
    }
    fs = *vfs_posix();
    fs.fsync = fs.fdatasync = no_sync;
    fs.sync_dir = no_sync_dir;
    fs.pwritev = sparse_pwritev;
    enum service_exit code = rig_open(&rig, &fs, argv[1], SEGMENT);
    assert(code == EXIT_DONE);
    bool good = rig_prepare(&rig);
    assert(good);
    fill(strtoull(argv[2], NULL, 10));
    uint64_t end = rig.log.durable.end, lsn = rig.log.durable.lsn;
    int64_t index_ns = make_indexes();
    rig_close(&rig);
    printf("{\"end\":%llu,\"lsn\":%llu,\"index_cpu_s\":%.3f}\n", (unsigned long long)end,
           (unsigned long long)lsn, (double)index_ns / 1e9);
    return 0;
}
