/* Making the index of a sealed segment: one walk over its frames, each verified like a reader does, with the
 * digest of the same bytes on the way. So an index is only ever made of an undamaged segment. Nothing here is
 * fatal. */
#include "segment_index.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

enum { PLACES_AIM = INDEX_PLACES_MAX / 2, FIRST_PLACES = 64 };

struct segment_indexer {
    const struct vfs *fs;
    char dir[PATH_MAX];
    int fd;
    struct segment_header next; /* of the segment behind */
    struct segment_scan scan;
    struct log_chain chain;
    struct digest_state *digest; /* NULL when done */
    struct segment_index index;
    size_t places_cap;
    uint64_t gap;
};

/* The segment and the header behind it. */
static enum sh_error open_both(struct segment_indexer *x, uint64_t base_lsn, uint64_t next_base_lsn,
                               struct segment_header *header)
{
    uint64_t file_bytes, next_bytes;
    int fd;
    struct id16 log = x->index.log;
    enum sh_error error =
        segment_open(x->fs, x->dir, log, next_base_lsn, O_RDONLY, &fd, &x->next, &next_bytes);
    if (error != SH_OK)
        return error;
    x->fs->close(x->fs, fd);
    error = segment_open(x->fs, x->dir, log, base_lsn, O_RDONLY, &x->fd, header, &file_bytes);
    if (error != SH_OK)
        return error;
    uint64_t length = x->next.position - header->position;    /* huge when that lies before */
    x->index.end = length < file_bytes ? length : file_bytes; /* it may not be cut yet */
    return SH_OK;
}

/* The header's bytes are part of the digest. */
static void begin(struct segment_indexer *x, const struct segment_header *header)
{
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    segment_header_encode(header, bytes);
    x->index.base_lsn = header->base_lsn;
    x->index.position = header->position;
    x->chain = log_chain_of(header);
    x->digest = digest_open();
    digest_add(x->digest, slice_of(bytes, sizeof bytes));
    segment_scan_open(&x->scan, x->fs, x->fd, header->salt, x->index.end);
    for (x->gap = INDEX_GAP_BYTES; x->index.end / x->gap > PLACES_AIM;)
        x->gap *= 2;
}

enum sh_error segment_indexer_open(const struct vfs *fs, const char *dir, struct id16 log, uint64_t base_lsn,
                                   uint64_t next_base_lsn, struct segment_indexer **indexer)
{
    struct segment_header header;
    struct segment_indexer *x = xcalloc(1, sizeof *x);
    *x = (struct segment_indexer){.fs = fs, .fd = -1, .index.log = log};
    snprintf(x->dir, sizeof x->dir, "%s", dir);
    enum sh_error error = open_both(x, base_lsn, next_base_lsn, &header);
    if (error == SH_OK) {
        begin(x, &header);
        *indexer = x;
    } else {
        segment_indexer_close(x);
    }
    return error;
}

static void add_place(struct segment_indexer *x, const struct segment_place *place)
{
    struct segment_index *index = &x->index;
    uint64_t before = index->count > 0 ? index->places[index->count - 1].offset : SEGMENT_HEADER_BYTES;
    if (place->offset - before < x->gap)
        return;
    assert(index->count < INDEX_PLACES_MAX);
    if (index->count == x->places_cap) {
        x->places_cap = x->places_cap > 0 ? 2 * x->places_cap : FIRST_PLACES;
        index->places = xrealloc(index->places, x->places_cap * sizeof *index->places);
    }
    index->places[index->count++] = *place;
}

static bool take_frame(struct segment_indexer *x, const struct frame_header *h, struct slice bytes)
{
    struct segment_index *index = &x->index;
    struct segment_place place = {
        .offset = x->scan.offset - bytes.len,
        .lsn = x->chain.next_lsn,
        .hlc = h->hlc > index->last_hlc ? h->hlc : index->last_hlc, /* a writer's clock never goes back */
        .checksum = x->chain.checksum,
    };
    if (!log_chain_follow(&x->chain, h))
        return false;
    digest_add(x->digest, bytes);
    add_place(x, &place);
    if (index->frames++ == 0)
        index->first_hlc = place.hlc;
    index->last_hlc = place.hlc;
    index->checksum = h->checksum;
    return true;
}

/* All frames are there: they must lead to the next segment. */
static enum sh_error finish(struct segment_indexer *x, bool *done)
{
    if (x->next.base_lsn != x->chain.next_lsn || x->next.position != x->chain.position ||
        x->next.previous_checksum != x->chain.checksum)
        return SH_CORRUPT;
    x->index.next_lsn = x->chain.next_lsn;
    x->index.digest = digest_close(x->digest);
    x->digest = NULL;
    *done = true;
    return SH_OK;
}

enum sh_error segment_indexer_step(struct segment_indexer *x, uint64_t bytes, bool *done)
{
    struct frame_header h;
    struct slice frame;
    uint64_t until = x->scan.offset + bytes;
    *done = false;
    assert(x->digest != NULL);
    while (x->scan.offset < until) {
        enum scan_result result = segment_scan_next(&x->scan, &h, &frame);
        if (result == SCAN_END)
            return finish(x, done);
        if (result == SCAN_FAILED) {
            log_error("cannot read a segment", log_text("dir", x->dir),
                      log_uint("base_lsn", x->index.base_lsn), log_text("error", strerror(-x->scan.error)));
            return SH_INTERNAL;
        }
        if (result != SCAN_FRAME)
            return SH_CORRUPT;
        if (!take_frame(x, &h, frame)) {
            x->scan.offset -= frame.len;
            return SH_CORRUPT;
        }
    }
    return SH_OK;
}

void segment_indexer_where(const struct segment_indexer *x, uint64_t *offset, uint64_t *lsn)
{
    *offset = x->scan.offset;
    *lsn = x->chain.next_lsn;
}

int segment_indexer_write(struct segment_indexer *x)
{
    char name[SEGMENT_NAME_MAX], temporary[SEGMENT_NAME_MAX + 4], path[PATH_MAX];
    struct buf bytes = {0};
    assert(x->digest == NULL);
    segment_index_encode(&x->index, &bytes);
    segment_index_name(x->index.base_lsn, name);
    int result = vfs_replace_file(x->fs, x->dir, name, bytes.data, bytes.len);
    buf_free(&bytes);
    if (result < 0) {
        snprintf(temporary, sizeof temporary, "%s.tmp", name);
        vfs_path(path, x->dir, temporary);
        x->fs->unlink(x->fs, path);
    }
    return result;
}

void segment_indexer_close(struct segment_indexer *x)
{
    if (x->fd >= 0)
        x->fs->close(x->fs, x->fd);
    if (x->digest != NULL)
        digest_close(x->digest);
    segment_scan_free(&x->scan);
    segment_index_free(&x->index);
    free(x);
}
