/* Makes a data directory whose log has many small segments, for tests of what a large log costs.
 *
 * many_segments DIR COUNT: of node n1; each segment has one entry of 3,000 bytes. Nothing is synced. */
#include <stdio.h>
#include <stdlib.h>

#include "log.h"
#include "wal_rig.h"

enum { SEGMENT = 16 << 10, PAYLOAD = 3000, IN_ONE_RIG = 4000 };

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

static struct wal_rig rig;

/* One more entry; false: something failed. */
static bool append(uint64_t number)
{
    static const uint8_t payload[PAYLOAD];
    rig_append(&rig, 7, 1, number, slice_of(payload, sizeof payload));
    return rig_commit(&rig);
}

int main(int argc, char **argv)
{
    struct vfs fs = *vfs_posix();
    fs.fsync = fs.fdatasync = no_sync;
    fs.sync_dir = no_sync_dir;
    uint64_t count = argc == 3 ? strtoull(argv[2], NULL, 10) : 0, number = 0;
    log_set_level(LOG_WARN);
    while (count > 0) {
        uint64_t *bases;
        size_t segments;
        if (rig_open(&rig, &fs, argv[1], SEGMENT) != EXIT_DONE || !rig_prepare(&rig))
            return 1;
        for (unsigned i = 0; i < IN_ONE_RIG; i++)
            if (!append(++number))
                return 1;
        if (segment_list(&fs, rig.log.dir, &bases, &segments) < 0)
            return 1;
        free(bases);
        rig_close(&rig);
        if (segments >= count)
            break;
    }
    return count > 0 ? 0 : 2;
}
