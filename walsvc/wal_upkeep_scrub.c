/* What the scrubber finds, as the janitor deals with it: damage goes into the register, and is taken out when
 * it is found mended; an index that does not agree with its segment is made again. Only a register or a
 * progress that cannot be written for another reason than a full disk is fatal. */
#include "wal_upkeep.h"

#include <fcntl.h>

#include "log.h"
#include "segment_index.h"

void wal_upkeep_check(const struct wal_upkeep *u, int result)
{
    if (result < 0 && !wal_is_full(result))
        u->options.on_fatal(u->options.arg, "cannot write the register of damage", result);
}

/* What the register knows already has been told. A place where two parts don't fit together is no range. */
static void on_damage(void *arg, const struct wal_scrub_damage *damage)
{
    struct wal_upkeep *u = arg;
    struct log_damage_range range;
    if (u->options.on_damage != NULL)
        u->options.on_damage(u->options.arg, damage);
    if (damage->bytes > 0 &&
        wal_damage_find(u->options.damage, damage->base_lsn, damage->offset, damage->bytes, &range))
        return;
    log_error("the scrubber has found damage", log_text("file", damage->file),
              log_uint("offset", damage->offset), log_uint("bytes", damage->bytes),
              log_uint("first_lsn", damage->first_lsn), log_uint("readable_from", damage->next_lsn),
              log_text("what", damage->what));
    if (damage->bytes == 0)
        return;
    range = (struct log_damage_range){
        .base_lsn = damage->base_lsn,
        .offset = damage->offset,
        .bytes = damage->bytes,
        .position = damage->position,
        .first_lsn = damage->first_lsn,
        .next_lsn = damage->next_lsn,
        .checksum_before = damage->checksum_before,
        .checksum_after = damage->checksum_after,
    };
    wal_upkeep_check(u, wal_damage_add(u->options.damage, &range, damage->fd));
}

void wal_upkeep_on_damage(void *arg, const struct wal_scrub_damage *damage)
{
    struct wal_upkeep *u = arg;
    u->rounds.damages++;
    on_damage(u, damage);
}

/* The segment's frames are all good. They have checksums, a chain, and the next segment to lead to; the index
 * is an aid. So it is made again; but whatever has changed there unnoticed by any checksum is named. */
static void replace_index(struct wal_upkeep *u, const struct wal_scrub *s)
{
    char path[PATH_MAX], name[SEGMENT_NAME_MAX], is[DIGEST_TEXT], was[DIGEST_TEXT];
    digest_format(s->digest, is);
    digest_format(s->expected, was);
    if (s->digest_differs)
        log_error("a segment's digest is another one than its index says, though all its frames are valid: "
                  "the index is made again; compare the segment with a copy if there is one",
                  log_text("file", s->file), log_text("digest", is), log_text("in_index", was));
    else
        log_warn("the index of a segment is damaged; it is made again", log_text("file", s->file));
    segment_index_name(s->base_lsn, name);
    vfs_path(path, u->options.dir, name);
    if (u->options.fs->unlink(u->options.fs, path) == 0 && u->options.on_index_lost != NULL)
        u->options.on_index_lost(u->options.arg);
}

/* Behind a segment that was read whole. */
static enum wal_look settle(struct wal_upkeep *u, const struct wal_scrub *s)
{
    if (!s->clean)
        return WAL_LOOK_DAMAGED;
    wal_upkeep_check(u, wal_damage_found_good(u->options.damage, s->base_lsn, 0, s->end, &s->chain));
    if (!s->index_is_damaged && !s->digest_differs)
        return WAL_LOOK_WHOLE;
    replace_index(u, s);
    return WAL_LOOK_INDEX;
}

int64_t wal_upkeep_scrub(struct wal_upkeep *u, struct wal_upkeep_time now)
{
    int result;
    bool was_open = u->rounds.scrub.fd >= 0;
    int64_t due_ns = wal_rounds_step(&u->rounds, now.real_ns, now.mono_ns, &result);
    if (was_open && u->rounds.scrub.fd < 0 && u->rounds.scrub.chain_known) /* mended, by whomever */
        settle(u, &u->rounds.scrub);
    if (result < 0 && !wal_is_full(result))
        u->options.on_fatal(u->options.arg, "cannot write the scrubber's progress", result);
    return due_ns;
}

/* Reads a sealed segment, unless the janitor is to end. */
static enum wal_look look_at(struct wal_upkeep *u, struct wal_scrub *scrub, const struct wal_segment *segment)
{
    const atomic_bool *stop = u->catalog.stop;
    uint64_t bytes;
    if (!wal_scrub_enter(scrub, segment))
        return scrub->clean ? WAL_LOOK_NONE : WAL_LOOK_DAMAGED;
    while (!(stop != NULL && atomic_load(stop)))
        if (!wal_scrub_step(scrub, &bytes))
            return settle(u, scrub);
    wal_scrub_leave(scrub);
    return WAL_LOOK_NONE;
}

enum wal_look wal_upkeep_look(struct wal_upkeep *u, uint64_t base_lsn)
{
    const struct wal_catalog *c = &u->catalog;
    struct wal_scrub scrub;
    if (wal_catalog_refresh(&u->catalog) != SH_OK)
        return WAL_LOOK_NONE; /* the scrubber comes there in its time */
    wal_scrub_open(&scrub, u->options.fs, u->options.dir, u->options.log, on_damage, u);
    for (size_t i = 0; i < c->count; i++) {
        if (c->all[i].base_lsn != base_lsn || c->all[i].next_lsn == 0)
            continue;
        enum wal_look found = look_at(u, &scrub, &c->all[i]);
        if (found == WAL_LOOK_INDEX)
            wal_upkeep_repaired(u, base_lsn);
        return found;
    }
    return WAL_LOOK_NONE;
}

static void enter(struct wal_upkeep *u, const struct wal_segment *segment, int fd)
{
    const struct log_damage_range range = {
        .base_lsn = segment->base_lsn,
        .bytes = segment->bytes,
        .position = segment->position,
        .first_lsn = segment->base_lsn,
        .next_lsn = segment->next_lsn,
        .differs = true,
    };
    wal_upkeep_check(u, wal_damage_add(u->options.damage, &range, fd));
}

enum wal_look wal_upkeep_differs(struct wal_upkeep *u, uint64_t base_lsn)
{
    const struct vfs *fs = u->options.fs;
    const struct wal_catalog *c = &u->catalog;
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    struct log_damage_range range;
    segment_name(base_lsn, name);
    vfs_path(path, u->options.dir, name);
    for (size_t i = 0; i < c->count; i++) {
        if (c->all[i].base_lsn != base_lsn || c->all[i].next_lsn == 0)
            continue;
        if (wal_damage_find(u->options.damage, base_lsn, 0, c->all[i].bytes, &range) && range.differs)
            return WAL_LOOK_DIFFERS; /* what is left of it is being fetched */
        int fd = fs->open(fs, path, O_RDONLY, 0);
        if (fd < 0)
            break;
        enter(u, &c->all[i], fd);
        fs->close(fs, fd);
        return WAL_LOOK_DIFFERS;
    }
    return WAL_LOOK_NONE;
}

void wal_upkeep_repaired(struct wal_upkeep *u, uint64_t base_lsn)
{
    if (u->rounds.scrub.fd >= 0 && u->rounds.scrub.base_lsn == base_lsn)
        wal_scrub_leave(&u->rounds.scrub); /* it is entered again, from its start */
    u->rounds.scrub.chain_known = false;
}
