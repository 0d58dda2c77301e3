/* The rig of copies. A misuse by a test, and a copy that is not what it should be, are fatal. */
#include "copy_rig.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wal_cut.h"
#include "wal_prepare.h"
#include "wal_upkeep.h"

/* ---------------------------------------------------------------- an origin */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void add_units(struct origin *o, uint64_t at, uint64_t end, uint64_t base)
{
    struct frame_header h;
    uint64_t begin = at;
    for (at += SEGMENT_HEADER_BYTES; at < end; begin = at) {
        enum sh_error error = frame_header_decode(slice_of(o->bytes.data + at, FRAME_HEADER_BYTES),
                                                  FRAME_BYTES_MAX - FRAME_HEADER_BYTES, &h);
        assert(error == SH_OK && o->count < ORIGIN_UNITS_MAX);
        at += FRAME_HEADER_BYTES + h.body_bytes;
        o->units[o->count++] = (struct origin_unit){begin, at, h.kind == FRAME_CHECKPOINT, base};
    }
    assert(at == end);
}

/* Takes in what the rig has written. */
static void take_files(struct origin *o, const struct wal_rig *rig)
{
    uint64_t *bases;
    size_t count;
    int result = segment_list(rig->fs, rig->dir.log, &bases, &count);
    assert(result == 0);
    for (size_t i = 0; i < count; i++) {
        struct segment_header header;
        uint64_t bytes, begin = o->bytes.len;
        int fd;
        enum sh_error error =
            segment_open(rig->fs, rig->dir.log, o->log, bases[i], O_RDONLY, &fd, &header, &bytes);
        assert(error == SH_OK && header.position == begin);
        if (i + 1 == count)
            bytes = rig->log.offset;
        ssize_t got = vfs_read_full(rig->fs, fd, buf_reserve(&o->bytes, bytes), bytes, 0);
        assert(got == (ssize_t)bytes);
        o->bytes.len += bytes;
        rig->fs->close(rig->fs, fd);
        add_units(o, begin, o->bytes.len, bases[i]);
    }
    free(bases);
}

static struct wal_rig life;

static void open_life(struct sim_disk *disk)
{
    enum service_exit code = rig_open(&life, sim_disk_vfs(disk), ORIGIN_DATA, ORIGIN_SEGMENT);
    assert(code == EXIT_DONE);
}

void origin_read(struct origin *o, struct sim_disk *disk)
{
    memset(o, 0, sizeof *o);
    open_life(disk);
    o->log = life.dir.identity.log;
    take_files(o, &life);
    rig_close(&life);
}

void origin_make(struct origin *o, unsigned entries, uint64_t seed)
{
    static uint8_t payload[900];
    struct sim_disk *disk = sim_disk_open();
    uint64_t random = seed * 2654435761u + 1;
    open_life(disk);
    rig_prepare(&life);
    for (unsigned i = 0; i < entries; i++) {
        memset(payload, (int)next_random(&random), sizeof payload);
        rig_append(&life, 0, 1, 0, slice_of(payload, next_random(&random) % sizeof payload));
        bool good = next_random(&random) % 3 > 0 || rig_commit(&life);
        assert(good);
    }
    rig_close(&life);
    origin_read(o, disk);
    sim_disk_close(disk);
}

/* first: bytes of the payload of the first entry; 0: any. sequences: of the two producers, the next ones. */
static void append_some(unsigned entries, size_t first, uint64_t *random, uint64_t sequences[2])
{
    static uint8_t payload[4000];
    rig_prepare(&life);
    for (unsigned i = 0; i < entries; i++) {
        unsigned producer = i % 3;
        size_t size = next_random(random) % 900;
        memset(payload, (int)next_random(random), sizeof payload);
        rig_append(&life, producer, 1, producer > 0 ? sequences[producer - 1]++ : 0,
                   slice_of(payload, i == 0 && first > 0 ? first : size));
        bool good = next_random(random) % 3 > 0 || rig_commit(&life);
        assert(good);
    }
    bool good = rig_commit(&life);
    assert(good);
}

void origin_make_two(struct origin *a, struct origin *b, const struct origin_fork *how,
                     struct log_chain *fork, struct sim_disk **kept)
{
    struct sim_disk *disk = sim_disk_open();
    static const uint32_t none[1024];
    uint64_t random = how->seed * 2654435761u + 1, random_b = random + 1;
    uint64_t sequences_a[2] = {1, 1}, sequences_b[2];
    open_life(disk);
    append_some(how->common, 0, &random, sequences_a);
    *fork = life.log.chain;
    memcpy(sequences_b, sequences_a, sizeof sequences_b);
    rig_close(&life);
    struct sim_disk *other = sim_disk_image(disk, none);
    open_life(disk);
    append_some(how->tail_a, how->first_a, &random, sequences_a);
    rig_close(&life);
    origin_read(a, disk);
    open_life(other);
    life.now_ns += NS_PER_S; /* no two frames are the same */
    append_some(how->tail_b, how->first_b, &random_b, sequences_b);
    rig_close(&life);
    origin_read(b, other);
    sim_disk_close(other);
    if (kept != NULL)
        *kept = disk;
    else
        sim_disk_close(disk);
}

void origin_free(struct origin *o)
{
    buf_free(&o->bytes);
}

struct slice origin_bytes(const struct origin *o, size_t first, size_t behind)
{
    assert(first < behind && behind <= o->count);
    uint64_t begin = o->units[first].begin;
    return slice_of(o->bytes.data + begin, o->units[behind - 1].end - begin);
}

size_t origin_cut(const struct origin *o, size_t first, size_t most)
{
    size_t behind = first + 1;
    while (behind < o->count && behind - first < most && !o->units[behind].opens_segment)
        behind++;
    return behind;
}

size_t origin_find(const struct origin *o, uint64_t position)
{
    size_t i = 0;
    while (i < o->count && o->units[i].begin != position)
        i++;
    assert(i < o->count);
    return i;
}

/* ---------------------------------------------------------------- a copy */

static enum sh_error make_dirs(const struct copy_rig *rig)
{
    char logs[PATH_MAX];
    const struct vfs *fs = rig->fs;
    vfs_path(logs, rig->data, "log");
    const char *dirs[] = {rig->data, logs, rig->path};
    int result = 0;
    for (size_t i = 0; i < 3 && (result == 0 || result == -EEXIST); i++)
        result = fs->mkdir(fs, dirs[i], 0750);
    const char *parents[] = {"/", rig->data, logs};
    for (size_t i = 0; i < 3 && (result == 0 || result == -EEXIST); i++)
        result = fs->sync_dir(fs, parents[i]);
    return result == 0 ? SH_OK : SH_INTERNAL;
}

struct sim_disk *holder_disk(struct wal_dir *dir)
{
    struct sim_disk *disk = sim_disk_open();
    const struct vfs *fs = sim_disk_vfs(disk);
    char logs[PATH_MAX], uuid[ID_TEXT];
    *dir = (struct wal_dir){.fs = fs, .identity.log = {{9}}};
    snprintf(dir->data, sizeof dir->data, HOLDER_DATA);
    vfs_path(logs, dir->data, "log");
    vfs_path(dir->quarantine, dir->data, "quarantine");
    id16_format(dir->identity.log, uuid);
    vfs_path(dir->log, logs, uuid);
    bool made = fs->mkdir(fs, dir->data, 0750) == 0 && fs->mkdir(fs, logs, 0750) == 0 &&
                fs->sync_dir(fs, "/") == 0 && fs->sync_dir(fs, dir->data) == 0;
    assert(made);
    return disk;
}

enum sh_error copy_rig_open(struct copy_rig *rig, const struct vfs *fs, const char *data, struct id16 log,
                            uint64_t segment_size)
{
    char uuid[ID_TEXT], logs[PATH_MAX];
    memset(rig, 0, sizeof *rig);
    *rig = (struct copy_rig){.fs = fs, .log = log, .segment_size = segment_size};
    snprintf(rig->data, sizeof rig->data, "%s", data);
    id16_format(log, uuid);
    vfs_path(logs, data, "log");
    vfs_path(rig->path, logs, uuid);
    vfs_path(rig->quarantine, data, "quarantine");
    enum sh_error error = make_dirs(rig);
    if (error == SH_OK)
        error = wal_damage_open(fs, rig->path, log, rig->quarantine, 0, &rig->damage);
    if (error == SH_OK)
        error =
            wal_log_open_copy(&rig->files, fs, rig->path, log, segment_size, rig->quarantine, rig->damage);
    if (error != SH_OK)
        wal_damage_close(rig->damage);
    return error;
}

void copy_rig_close(struct copy_rig *rig)
{
    wal_log_close(&rig->files);
    wal_damage_close(rig->damage);
}

bool copy_rig_mark(struct copy_rig *rig)
{
    return wal_log_write_mark(&rig->files) == 0;
}

static void on_fatal(void *arg, const char *what, int result)
{
    struct copy_rig *rig = arg;
    (void)what;
    rig->fatal = result;
}

/* As a janitor does it. */
static int give_up(struct copy_rig *rig, uint64_t next_lsn)
{
    struct wal_upkeep upkeep;
    struct wal_upkeep_options options = {.fs = rig->fs,
                                         .dir = rig->path,
                                         .log = rig->log,
                                         .damage = rig->damage,
                                         .on_fatal = on_fatal,
                                         .arg = rig};
    enum service_exit code = wal_upkeep_open(&upkeep, &options, (struct wal_upkeep_time){1, 1});
    if (code != EXIT_DONE)
        return -EIO;
    wal_upkeep_give_up(&upkeep, next_lsn);
    wal_upkeep_close(&upkeep);
    return rig->fatal;
}

static int roll(struct copy_rig *rig, const struct wal_copy_piece *piece, bool anew)
{
    uint64_t limit = rig->segment_size, old_end;
    int old = -1, result = rig->files.fd >= 0 ? wal_log_sync(&rig->files) : 0;
    int fd = wal_prepare_make(rig->fs, rig->path, rig->segment_size, 0);
    if (result == 0 && fd >= 0)
        result = wal_log_room(&rig->files, fd, &limit, piece->bytes.len, 0);
    if (result == 0 && anew)
        result = wal_log_forget(&rig->files);
    if (result == 0 && anew)
        result = give_up(rig, piece->segment.base_lsn);
    if (result < 0 || fd < 0) {
        if (fd >= 0)
            rig->fs->close(rig->fs, fd);
        return result < 0 ? result : fd;
    }
    result =
        wal_log_adopt(&rig->files, fd, limit, &piece->segment, piece->bytes, &piece->behind, &old, &old_end);
    if (result == 0)
        result = wal_log_write_mark(&rig->files);
    if (result == 0 && old >= 0)
        result = wal_prepare_seal(rig->fs, old, old_end);
    if (old >= 0)
        rig->fs->close(rig->fs, old);
    return result;
}

/* False: it was refused, or *good says that a file call failed. */
static bool replace(struct copy_rig *rig, const struct msg_copy_append *m, bool *good)
{
    struct wal_log *log = &rig->files;
    struct wal_fork fork;
    const struct wal_cut cut = {
        .data = rig->data, .log = log, .damage = rig->damage, .given_up = rig->given_up};
    int result = wal_log_sync(log);
    if (result == 0) {
        enum wal_fork_verdict verdict = wal_copy_fork(log, m, &fork, &rig->refusal);
        if (verdict != WAL_FORK_FOUND)
            return verdict == WAL_FORK_NONE;
        result = wal_cut(&cut, &fork);
    }
    rig->was_full = wal_is_full(result);
    *good = result == 0 || rig->was_full;
    return result == 0;
}

enum wal_copy_verdict copy_rig_write(struct copy_rig *rig, uint64_t position, struct slice bytes, bool anew,
                                     bool *good)
{
    struct wal_log *log = &rig->files;
    struct wal_copy_piece piece;
    const struct msg_copy_append m = {
        .log = rig->log, .position = position, .bytes = bytes, .anew = anew, .over = rig->over};
    *good = true;
    if (rig->over && position < log->chain.position && !replace(rig, &m, good))
        return WAL_COPY_REFUSED;
    enum wal_copy_verdict verdict = wal_copy_check(log, &m, &piece, &rig->refusal);
    int result = 0;
    if (verdict == WAL_COPY_APPENDS) {
        uint64_t need = piece.behind.position - log->segment.position;
        struct iovec iov = {(void *)(uintptr_t)piece.bytes.data, piece.bytes.len};
        result = wal_log_room(log, log->fd, &log->limit, need, 0);
        log->chain = piece.behind;
        if (result == 0)
            result = wal_log_put(log, &iov, 1);
    } else if (verdict == WAL_COPY_ROLLS || verdict == WAL_COPY_ANEW) {
        result = roll(rig, &piece, verdict == WAL_COPY_ANEW);
    }
    *good = result == 0;
    return verdict;
}

enum wal_copy_verdict copy_rig_append(struct copy_rig *rig, uint64_t position, struct slice bytes, bool anew,
                                      bool *good)
{
    enum wal_copy_verdict verdict = copy_rig_write(rig, position, bytes, anew, good);
    if (*good && verdict != WAL_COPY_REFUSED && rig->files.fd >= 0)
        *good = wal_log_sync(&rig->files) == 0;
    return verdict;
}

size_t copy_rig_ranges(const struct copy_rig *rig)
{
    size_t count;
    free(wal_damage_list(rig->damage, &count));
    return count;
}

void copy_rig_fill(struct copy_rig *rig, const struct origin *o, size_t most)
{
    bool good = true;
    while (rig->files.chain.position < o->bytes.len) {
        size_t first = origin_find(o, rig->files.chain.position), behind = origin_cut(o, first, most);
        enum wal_copy_verdict verdict =
            copy_rig_append(rig, o->units[first].begin, origin_bytes(o, first, behind), false, &good);
        assert(good && (verdict == WAL_COPY_APPENDS || verdict == WAL_COPY_ROLLS));
    }
}

/* One segment's file against the origin's bytes. */
static void check_file(const struct copy_rig *rig, const struct origin *o, uint64_t base, bool is_newest)
{
    struct segment_header header;
    uint64_t file_bytes, end = rig->files.durable.end;
    int fd;
    enum sh_error error =
        segment_open(rig->fs, rig->path, rig->log, base, O_RDONLY, &fd, &header, &file_bytes);
    assert(error == SH_OK);
    for (size_t i = 0; i < o->count && !is_newest; i++)
        if (o->units[i].opens_segment && o->units[i].begin > header.position) {
            end = o->units[i].begin;
            break;
        }
    struct buf bytes = {0};
    ssize_t got = vfs_read_full(rig->fs, fd, buf_reserve(&bytes, file_bytes), file_bytes, 0);
    rig->fs->close(rig->fs, fd);
    uint64_t size = end - header.position;
    assert(got == (ssize_t)file_bytes && size <= file_bytes && end <= o->bytes.len);
    assert(is_newest || size == file_bytes);
    assert(memcmp(bytes.data, o->bytes.data + header.position, size) == 0);
    for (uint64_t i = size; i < file_bytes; i++)
        assert(bytes.data[i] == 0);
    buf_free(&bytes);
}

void copy_rig_check(struct copy_rig *rig, const struct origin *o)
{
    uint64_t *bases;
    size_t count;
    int result = segment_list(rig->fs, rig->path, &bases, &count);
    assert(result == 0);
    for (size_t i = 0; i < count; i++)
        check_file(rig, o, bases[i], i + 1 == count);
    free(bases);
}
