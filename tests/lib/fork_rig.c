/* The rig of forks. A misuse by a test, and what is not as it should be, are fatal. */
#include "fork_rig.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "wal_forked.h"

void fork_rig_make(struct fork_rig *f, const struct origin_fork *how, struct sim_disk **disk)
{
    memset(f, 0, sizeof *f);
    f->data = "/holder";
    origin_make_two(&f->a, &f->b, how, &f->fork, disk);
}

void fork_rig_free(struct fork_rig *f)
{
    origin_free(&f->a);
    origin_free(&f->b);
}

size_t fork_rig_start(const struct fork_rig *f)
{
    size_t unit = 0;
    for (size_t i = 0; i < f->b.count && f->b.units[i].begin < f->fork.position; i++)
        if (f->b.units[i].opens_segment)
            unit = i;
    return unit;
}

enum sh_error fork_rig_open(struct fork_rig *f, const struct vfs *fs, bool own)
{
    enum sh_error error = copy_rig_open(&f->rig, fs, f->data, f->a.log, ORIGIN_SEGMENT);
    if (error != SH_OK)
        return error;
    f->rig.over = true;
    f->rig.given_up = own ? &f->given_up : NULL;
    error = wal_given_up_read(&f->given_up, fs, f->rig.path, f->a.log);
    if (error != SH_OK)
        copy_rig_close(&f->rig);
    return error;
}

bool fork_rig_bring(struct fork_rig *f, size_t unit, size_t most)
{
    bool good = true;
    while (unit < f->b.count && good) {
        size_t behind = origin_cut(&f->b, unit, most);
        enum wal_copy_verdict verdict =
            copy_rig_append(&f->rig, f->b.units[unit].begin, origin_bytes(&f->b, unit, behind), false, &good);
        assert(!good || verdict != WAL_COPY_REFUSED);
        unit = behind;
    }
    return good;
}

/* ---------------------------------------------------------------- what was kept */

/* Whether the bytes are frames of a from the fork on; enters them in `seen`, one byte for each of a's. */
static void check_bytes(const struct fork_rig *f, uint64_t base, const struct buf *file, uint8_t *seen)
{
    struct segment_header header;
    enum sh_error error = segment_header_decode(buf_slice(file), &header);
    assert(error == SH_OK && header.base_lsn == base);
    uint64_t from = header.position + SEGMENT_HEADER_BYTES;
    from = from < f->fork.position ? f->fork.position : from;
    uint64_t bytes = file->len - SEGMENT_HEADER_BYTES;
    assert(from + bytes <= f->a.bytes.len);
    assert(memcmp(file->data + SEGMENT_HEADER_BYTES, f->a.bytes.data + from, bytes) == 0);
    memset(seen + from, 1, bytes);
}

static void check_folder(const struct fork_rig *f, const struct vfs *fs, const char *name, uint8_t *seen)
{
    char root[PATH_MAX], folder[PATH_MAX], path[PATH_MAX], file[SEGMENT_NAME_MAX];
    uint64_t *bases;
    size_t count;
    vfs_path(root, f->data, "forked");
    vfs_path(folder, root, name);
    int result = segment_list(fs, folder, &bases, &count);
    assert(result == 0 && count > 0);
    for (size_t i = 0; i < count; i++) {
        struct buf bytes = {0};
        int64_t size;
        segment_name(bases[i], file);
        vfs_path(path, folder, file);
        int fd = fs->open(fs, path, O_RDONLY, 0);
        assert(fd >= 0);
        result = fs->size(fs, fd, &size);
        ssize_t got = vfs_read_full(fs, fd, buf_reserve(&bytes, (size_t)size), (size_t)size, 0);
        assert(result == 0 && got == size);
        bytes.len = (size_t)size;
        fs->close(fs, fd);
        check_bytes(f, bases[i], &bytes, seen);
        buf_free(&bytes);
    }
    free(bases);
}

size_t fork_rig_check_kept(const struct fork_rig *f, const struct vfs *fs)
{
    struct wal_forked_folder *folders;
    size_t count;
    uint8_t *seen = xcalloc(1, f->a.bytes.len);
    int result = wal_forked_list(fs, f->data, f->a.log, &folders, &count);
    assert(result == 0 && count > 0);
    for (size_t i = 0; i < count; i++)
        check_folder(f, fs, folders[i].name, seen);
    for (size_t i = 0; i < f->a.count; i++) {
        uint64_t from = f->a.units[i].begin + (f->a.units[i].opens_segment ? SEGMENT_HEADER_BYTES : 0);
        for (uint64_t at = from; at < f->a.units[i].end && f->a.units[i].begin >= f->fork.position; at++)
            assert(seen[at]);
    }
    free(seen);
    free(folders);
    return count;
}
