/* The scrubber's walk over a segment. Nothing here is fatal: what cannot be read is damage. */
#include "wal_scrub.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "segment_index.h"

enum { STEP_BYTES = 256 << 10, PAGE_BYTES = 4096 };

void wal_scrub_open(struct wal_scrub *s, const struct vfs *fs, const char *dir, struct id16 log,
                    void (*on_damage)(void *arg, const struct wal_scrub_damage *damage), void *arg)
{
    *s = (struct wal_scrub){.fs = fs, .dir = dir, .log = log, .on_damage = on_damage, .arg = arg, .fd = -1};
}

/* Gives up comparing. */
static void drop_digest(struct wal_scrub *s)
{
    if (s->digest_state != NULL)
        digest_close(s->digest_state);
    s->digest_state = NULL;
}

void wal_scrub_leave(struct wal_scrub *s)
{
    drop_digest(s);
    if (s->fd < 0)
        return;
    segment_scan_free(&s->scan);
    s->fs->close(s->fs, s->fd);
    s->fd = -1;
}

/* Tells a damage of which the caller has filled in what is not the same for all of the segment. */
static void tell(struct wal_scrub *s, struct wal_scrub_damage damage)
{
    s->clean = false;
    damage.file = s->file;
    damage.fd = s->fd;
    damage.base_lsn = s->base_lsn;
    damage.position = s->position + damage.offset;
    s->on_damage(s->arg, &damage);
}

/* One at the beginning of the segment that costs no entry. */
static void tell_beginning(struct wal_scrub *s, uint64_t bytes, const char *what)
{
    tell(s, (struct wal_scrub_damage){
                .what = what, .bytes = bytes, .first_lsn = s->base_lsn, .next_lsn = s->base_lsn});
}

/* The header, or what follows from the file's name and the segment before when it is damaged. */
static bool read_header(struct wal_scrub *s, struct segment_header *header)
{
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    ssize_t len = vfs_read_full(s->fs, s->fd, bytes, sizeof bytes, 0);
    if (len == sizeof bytes && segment_header_decode(slice_of(bytes, sizeof bytes), header) == SH_OK &&
        header->base_lsn == s->base_lsn && id16_equal(header->log, s->log))
        return true;
    *header = (struct segment_header){
        .log = s->log,
        .salt = segment_salt(s->log, s->base_lsn),
        .previous_checksum = s->chain.checksum,
        .base_lsn = s->base_lsn,
        .position = s->chain.position,
    };
    return false;
}

/* What the segment's digest is to be compared with. */
static void read_index(struct wal_scrub *s, const struct segment_header *header)
{
    struct segment_index index;
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    enum sh_error error = segment_index_read(s->fs, s->dir, s->log, s->base_lsn, &index);
    s->index_is_damaged = error == SH_CORRUPT;
    if (error != SH_OK)
        return;
    s->expected = index.digest;
    segment_index_free(&index);
    segment_header_encode(header, bytes);
    s->digest_state = digest_open();
    digest_add(s->digest_state, slice_of(bytes, sizeof bytes));
}

/* When the segment before it was not the last one read, or has been trimmed since, nothing can be said. */
static bool continues(const struct wal_scrub *s, const struct segment_header *h)
{
    if (!s->chain_known || h->base_lsn != s->chain.next_lsn)
        return true;
    return h->position == s->chain.position && h->previous_checksum == s->chain.checksum;
}

bool wal_scrub_enter(struct wal_scrub *s, const struct wal_segment *segment)
{
    struct segment_header header;
    char name[SEGMENT_NAME_MAX];
    wal_scrub_leave(s);
    segment_name(segment->base_lsn, name);
    vfs_path(s->file, s->dir, name);
    s->base_lsn = segment->base_lsn;
    s->next_lsn = segment->next_lsn;
    s->end = segment->bytes;
    s->position = segment->position;
    s->clean = true;
    s->index_is_damaged = s->digest_differs = false;
    s->fd = s->fs->open(s->fs, s->file, O_RDONLY, 0);
    if (s->fd < 0) {
        bool is_gone = s->fd == -ENOENT;
        s->fd = -1;
        if (!is_gone)
            tell(s, (struct wal_scrub_damage){.what = "the file cannot be opened",
                                              .bytes = s->end,
                                              .first_lsn = s->base_lsn,
                                              .next_lsn = s->next_lsn});
        s->chain_known = false;
        return false;
    }
    s->fs->forget(s->fs, s->fd, 0, 0);
    bool good = read_header(s, &header);
    s->position = header.position;
    if (!good)
        tell_beginning(s, SEGMENT_HEADER_BYTES, "the segment's header is damaged");
    else if (!continues(s, &header))
        tell_beginning(s, 0, "the segment doesn't continue the one before");
    if (good)
        read_index(s, &header);
    s->chain = log_chain_of(&header);
    s->chain_known = false; /* until its end is reached */
    segment_scan_open(&s->scan, s->fs, s->fd, header.salt, s->end);
    return true;
}

/* Stands before what is no valid frame: tells it, and goes on behind it. False: nothing valid is behind it.
 */
static bool pass_damage(struct wal_scrub *s)
{
    struct segment_search search;
    struct frame_header h;
    drop_digest(s);
    struct wal_scrub_damage damage = {
        .what = "no valid frame here; one follows",
        .offset = s->scan.offset,
        .first_lsn = s->chain.next_lsn,
        .checksum_before = s->chain.checksum,
    };
    segment_search_open(&search, &s->scan, &s->chain);
    search.end = s->end;
    enum scan_result result = segment_search_next(&search, s->end, &h);
    if (result != SCAN_FRAME) {
        damage.what = result == SCAN_FAILED ? "the disk does not give these bytes"
                                            : "no valid frame here, and none behind it in this file";
        damage.bytes = s->end - damage.offset;
        damage.next_lsn = s->next_lsn;
        tell(s, damage);
        s->chain_known = false;
        return false;
    }
    damage.bytes = s->scan.offset - damage.offset;
    damage.next_lsn = h.base_lsn;
    damage.checksum_after = h.previous_checksum;
    tell(s, damage);
    s->chain = (struct log_chain){h.base_lsn, h.previous_checksum, s->position + s->scan.offset};
    return true;
}

static void compare_digest(struct wal_scrub *s)
{
    if (s->digest_state == NULL)
        return;
    s->digest = digest_close(s->digest_state);
    s->digest_state = NULL;
    s->digest_differs = !digest_equal(s->digest, s->expected);
}

/* One frame on. False: the segment is done. */
static bool advance(struct wal_scrub *s)
{
    struct frame_header h;
    struct slice bytes;
    uint64_t offset = s->scan.offset;
    enum scan_result result = segment_scan_next(&s->scan, &h, &bytes);
    if (result == SCAN_END) {
        s->chain_known = true;
        compare_digest(s);
        return false;
    }
    if (result == SCAN_FRAME && log_chain_follow(&s->chain, &h)) {
        if (s->digest_state != NULL)
            digest_add(s->digest_state, bytes);
        return true;
    }
    s->scan.offset = offset;
    return pass_damage(s);
}

bool wal_scrub_step(struct wal_scrub *s, uint64_t *bytes)
{
    uint64_t from = s->scan.offset;
    bool more = true;
    while (more && s->scan.offset - from < STEP_BYTES)
        more = advance(s);
    *bytes = (more ? s->scan.offset : s->end) - from;
    uint64_t page = from & ~(uint64_t)(PAGE_BYTES - 1);
    s->fs->forget(s->fs, s->fd, (int64_t)page, (int64_t)(from + *bytes - page));
    if (!more)
        wal_scrub_leave(s);
    return more;
}
