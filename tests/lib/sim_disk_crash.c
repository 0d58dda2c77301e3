/* What the simulated disk holds after a crash: by chance, or as a test chooses. */
#include "sim_disk_state.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One sector that wasn't synced: its new bytes, its old ones, or noise where the two differ. */
static void lose_sector(struct sim_disk *d, uint8_t *now, const uint8_t *old, size_t len)
{
    uint64_t choice = sim_random(d) % 8;
    for (size_t i = 0; i < len && choice < 4; i++)
        if (now[i] != old[i])
            now[i] = choice == 0 ? (uint8_t)sim_random(d) : old[i];
}

static void lose_some(struct sim_disk *d, struct inode *inode)
{
    size_t now_len = inode->now.len, old_len = inode->durable.len;
    size_t most = now_len > old_len ? now_len : old_len, least = now_len + old_len - most;
    sim_resize(&inode->now, most);
    sim_resize(&inode->durable, most);
    for (size_t at = 0; at < most; at += SECTOR) {
        size_t len = most - at < SECTOR ? most - at : SECTOR;
        if (memcmp(inode->now.data + at, inode->durable.data + at, len) != 0)
            lose_sector(d, inode->now.data + at, inode->durable.data + at, len);
    }
    sim_resize(&inode->now, sim_random(d) % 2 == 0 ? most : least);
}

/* A file whose folder is gone is gone. */
static void drop_orphans(struct names *names)
{
    for (size_t i = 0; i < names->count;) {
        char parent[PATH_BYTES];
        snprintf(parent, sizeof parent, "%s", names->all[i].path);
        *strrchr(parent, '/') = 0;
        bool keep = parent[0] == 0 || sim_find_name(names, parent) != NULL;
        if (!keep)
            names->all[i] = names->all[--names->count];
        i = keep ? i + 1 : 0;
    }
}

/* Half of the time a journal's prefix, half of the time any subset. */
static void lose_names(struct sim_disk *d, enum sim_loss loss)
{
    bool in_order = sim_random(d) % 2 == 0;
    size_t kept = loss == SIM_LOSE_SOME && in_order ? sim_random(d) % (d->op_count + 1) : 0;
    for (size_t i = 0; i < d->op_count; i++)
        if (i < kept || (loss == SIM_LOSE_SOME && !in_order && sim_random(d) % 2 == 0))
            sim_apply_op(&d->durable, &d->ops[i]);
    d->op_count = 0;
    drop_orphans(&d->durable);
    d->now = d->durable;
}

static void settle(struct inode *inode, const struct buf *from, struct buf *to)
{
    to->len = 0;
    buf_append(to, from->data, from->len);
    inode->dirty.len = 0;
    inode->versions.len = 0;
    inode->is_changed = false;
}

static void lose_bytes(struct sim_disk *d, struct inode *inode, enum sim_loss loss)
{
    if (!inode->is_changed)
        return;
    if (loss == SIM_LOSE_SOME)
        lose_some(d, inode);
    if (loss == SIM_LOSE_SOME)
        settle(inode, &inode->now, &inode->durable);
    else
        settle(inode, &inode->durable, &inode->now);
}

static void mark_named(const struct names *names, bool *named, const struct inode *first)
{
    for (size_t i = 0; i < names->count; i++)
        named[names->all[i].inode - first] = true;
}

/* Files without a name and without a descriptor are gone. */
static void collect(struct sim_disk *d)
{
    static _Thread_local bool named[INODES_MAX];
    memset(named, 0, sizeof named);
    mark_named(&d->now, named, d->inodes);
    mark_named(&d->durable, named, d->inodes);
    for (size_t i = 0; i < d->op_count; i++)
        if (d->ops[i].inode != NULL)
            named[d->ops[i].inode - d->inodes] = true;
    for (size_t i = 0; i < d->inode_count; i++) {
        struct inode *inode = &d->inodes[i];
        if (named[i] || !inode->is_used)
            continue;
        buf_free(&inode->now);
        buf_free(&inode->durable);
        buf_free(&inode->dirty);
        buf_free(&inode->versions);
        *inode = (struct inode){0};
    }
}

void sim_disk_crash(struct sim_disk *d, enum sim_loss loss, uint64_t seed)
{
    d->random = seed * 2 + 1;
    memset(d->fds, 0, sizeof d->fds);
    d->stop_at = UINT64_MAX;
    d->fail_next_sync = false;
    if (loss != SIM_LOSE_NOTHING) {
        lose_names(d, loss);
        for (size_t i = 0; i < d->inode_count; i++)
            lose_bytes(d, &d->inodes[i], loss);
    }
    collect(d);
}

/* ---------------------------------------------------------------- images */

void sim_disk_record(struct sim_disk *d, bool on)
{
    d->is_recording = on;
}

static struct sector_version *versions_of(const struct inode *inode, size_t *count)
{
    *count = inode->versions.len / sizeof(struct sector_version);
    return (struct sector_version *)(void *)inode->versions.data;
}

/* How many versions of the sector there are; *index gets the place of its nth. */
static uint32_t count_versions(const struct inode *inode, size_t sector, uint32_t nth, size_t *index)
{
    size_t count;
    uint32_t found = 0;
    const struct sector_version *all = versions_of(inode, &count);
    for (size_t i = 0; i < count; i++)
        if (all[i].sector == sector && found++ == nth)
            *index = i;
    return found;
}

/* Whether the version at `at` is its sector's first: there the choice for the sector stands. */
static bool is_first(const struct sector_version *all, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (all[i].sector == all[at].sector)
            return false;
    return true;
}

static void add_choice(uint32_t *options, size_t most, size_t *count, uint32_t among)
{
    assert(*count < most);
    options[(*count)++] = among;
}

size_t sim_disk_choices(const struct sim_disk *d, uint32_t *options, size_t most)
{
    size_t count = 0, versions, index;
    for (size_t i = 0; i < d->op_count; i++)
        add_choice(options, most, &count, 2);
    for (size_t i = 0; i < d->inode_count; i++) {
        const struct inode *inode = &d->inodes[i];
        const struct sector_version *all = versions_of(inode, &versions);
        if (inode->now.len != inode->durable.len)
            add_choice(options, most, &count, 2);
        for (size_t at = 0; at < versions; at++)
            if (is_first(all, at))
                add_choice(options, most, &count, 1 + count_versions(inode, all[at].sector, 0, &index));
    }
    return count;
}

static void put_sector(struct buf *data, const struct sector_version *version)
{
    size_t at = version->sector * SECTOR, end = at + SECTOR;
    if (end > data->len)
        sim_resize(data, end);
    memcpy(data->data + at, version->bytes, SECTOR);
}

/* The file's bytes as chosen; returns the choices behind those that it took. */
static const uint32_t *choose_bytes(const struct inode *from, struct inode *to, const uint32_t *chosen)
{
    size_t versions, index = 0, size = from->durable.len;
    const struct sector_version *all = versions_of(from, &versions);
    if (from->now.len != size && *chosen++ == 1)
        size = from->now.len;
    buf_append(&to->durable, from->durable.data, from->durable.len);
    for (size_t at = 0; at < versions; at++) {
        if (!is_first(all, at))
            continue;
        uint32_t choice = *chosen++;
        if (choice > 0) {
            count_versions(from, all[at].sector, choice - 1, &index);
            put_sector(&to->durable, &all[index]);
        }
    }
    sim_resize(&to->durable, size);
    buf_append(&to->now, to->durable.data, to->durable.len);
    to->is_dir = from->is_dir;
    to->is_used = from->is_used;
    return chosen;
}

static void move_names(struct names *names, const struct inode *from, struct inode *to)
{
    for (size_t i = 0; i < names->count; i++)
        names->all[i].inode = to + (names->all[i].inode - from);
}

struct sim_disk *sim_disk_image(const struct sim_disk *d, const uint32_t *chosen)
{
    struct sim_disk *image = sim_disk_open();
    image->durable = d->durable;
    for (size_t i = 0; i < d->op_count; i++)
        if (*chosen++ == 1)
            sim_apply_op(&image->durable, &d->ops[i]);
    drop_orphans(&image->durable);
    move_names(&image->durable, d->inodes, image->inodes);
    image->now = image->durable;
    image->inode_count = d->inode_count;
    for (size_t i = 0; i < d->inode_count; i++)
        chosen = choose_bytes(&d->inodes[i], &image->inodes[i], chosen);
    collect(image);
    return image;
}
