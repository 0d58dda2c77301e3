/* Bytes for the copy of another node's log: raw ones, or a header and frames that the input describes, with
 * checksums that are right, and damage at a place of its choice. What is judged good must be whole frames
 * that continue what the copy holds; with `over`, whole frames that continue each other, and leave the copy's
 * chain where they are said to. Nothing is written. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "copy_rig.h"
#include "log.h"
#include "wal_copy_fork.h"
#include "wal_given_up.h"

enum { FRAMES_MAX = 8, HELD_FRAMES = 4, SEGMENT_BYTES = 16 << 10 };

static const struct id16 log_id = {{1}};
static struct copy_rig rig;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The next bytes of the input as a number; 0 when it is over. */
static uint64_t take(struct slice *input, size_t bytes)
{
    uint64_t value = 0;
    for (; bytes > 0 && input->len > 0; bytes--) {
        value = value << 8 | input->data[0];
        *input = slice_of(input->data + 1, input->len - 1);
    }
    return value;
}

static void add_frame(struct buf *out, struct log_chain *chain, uint32_t salt, struct frame_header h,
                      struct slice body)
{
    uint8_t header[FRAME_HEADER_BYTES];
    h.body_bytes = (uint32_t)body.len;
    frame_encode(&h, salt, body, header);
    buf_append(out, header, sizeof header);
    buf_append(out, body.data, body.len);
    chain->checksum = h.checksum;
    chain->next_lsn += h.count;
    chain->position += sizeof header + body.len;
}

/* A copy with one segment, on a disk of its own; once. */
static void make_copy(void)
{
    const struct segment_header segment = {.log = log_id, .salt = segment_salt(log_id, 1), .base_lsn = 1};
    struct log_chain chain = log_chain_of(&segment);
    uint8_t header[SEGMENT_HEADER_BYTES];
    struct buf bytes = {0};
    bool good;
    log_set_level(LOG_ERROR + 1);
    enum sh_error error =
        copy_rig_open(&rig, sim_disk_vfs(sim_disk_open()), "/holder", log_id, SEGMENT_BYTES);
    segment_header_encode(&segment, header);
    buf_append(&bytes, header, sizeof header);
    for (uint32_t i = 0; i < HELD_FRAMES; i++) {
        struct frame_header h = {.kind = i == 0 ? FRAME_CHECKPOINT : FRAME_DATA,
                                 .count = i,
                                 .base_lsn = chain.next_lsn,
                                 .previous_checksum = chain.checksum};
        add_frame(&bytes, &chain, segment.salt, h, slice_of(header, i));
    }
    enum wal_copy_verdict verdict = copy_rig_append(&rig, 0, buf_slice(&bytes), false, &good);
    assert(error == SH_OK && verdict == WAL_COPY_ROLLS && good);
    buf_free(&bytes);
}

/* A little off, by chance. */
static uint64_t near(uint64_t value, struct slice *input)
{
    static const int64_t off[] = {0, 0, 0, 0, 0, 0, 1, -1, 64, -64, 88, -88, INT64_MAX, 0, 0, 0};
    return value + (uint64_t)off[take(input, 1) % 16];
}

static void describe(struct buf *out, struct log_chain chain, struct slice *input)
{
    uint8_t header[SEGMENT_HEADER_BYTES];
    uint32_t salt = rig.files.segment.salt;
    unsigned frames = take(input, 1) % FRAMES_MAX;
    if (take(input, 1) % 2 != 0) {
        struct segment_header s = {.log = log_id,
                                   .base_lsn = near(chain.next_lsn, input),
                                   .position = near(chain.position, input),
                                   .previous_checksum = (uint32_t)near(chain.checksum, input)};
        salt = s.salt = segment_salt(log_id, s.base_lsn);
        segment_header_encode(&s, header);
        buf_append(out, header, sizeof header);
        chain = log_chain_of(&s);
    }
    while (frames-- > 0) {
        struct frame_header h = {.kind = (uint8_t)(take(input, 1) % (FRAME_LOSS + 1)),
                                 .count = (uint32_t)take(input, 1),
                                 .base_lsn = near(chain.next_lsn, input),
                                 .previous_checksum = (uint32_t)near(chain.checksum, input),
                                 .durable_end = take(input, 1) % 2 != 0 ? near(chain.position, input) : 0};
        size_t body = take(input, 1);
        add_frame(out, &chain, salt, h, slice_of(input->data, body < input->len ? body : input->len));
    }
}

/* Frames, from a chain to another. */
static void check_frames(struct slice bytes, uint32_t salt, struct log_chain chain,
                         const struct log_chain *behind)
{
    struct frame_header h;
    size_t size;
    for (size_t at = 0; at < bytes.len; at += size) {
        enum sh_error error =
            frame_verify(slice_of(bytes.data + at, bytes.len - at), salt, FRAME_BYTES_MAX, &h, &size);
        bool follows = error == SH_OK && log_chain_follow(&chain, &h);
        assert(follows);
    }
    assert(chain.position == behind->position && chain.checksum == behind->checksum &&
           chain.next_lsn == behind->next_lsn);
}

static void check(const struct msg_copy_append *m)
{
    const struct log_chain end = rig.files.chain;
    struct wal_copy_piece piece;
    struct wal_refusal refusal;
    enum wal_copy_verdict verdict = wal_copy_check(&rig.files, m, &piece, &refusal);
    if (verdict == WAL_COPY_REFUSED) {
        assert(refusal.code == SH_BAD_REQUEST || refusal.code == SH_CONFLICT ||
               refusal.code == SH_VERSION_MISMATCH);
        assert(refusal.expected == (refusal.code == SH_CONFLICT ? end.position : 0));
    } else if (verdict == WAL_COPY_APPENDS) {
        assert(piece.bytes.data + piece.bytes.len == m->bytes.data + m->bytes.len && piece.bytes.len > 0);
        check_frames(piece.bytes, rig.files.segment.salt, end, &piece.behind);
    } else if (verdict != WAL_COPY_THERE) {
        const struct segment_header *s = &piece.segment;
        assert(piece.bytes.len == m->bytes.len && s->position == m->position);
        assert(verdict == WAL_COPY_ROLLS
                   ? s->position == end.position && s->base_lsn == end.next_lsn &&
                         s->previous_checksum == end.checksum
                   : m->anew && s->position > end.position && s->base_lsn >= end.next_lsn);
        check_frames(slice_of(m->bytes.data + SEGMENT_HEADER_BYTES, m->bytes.len - SEGMENT_HEADER_BYTES),
                     s->salt, log_chain_of(s), &piece.behind);
    }
}

/* The frames of the message from the fork on continue what the copy has before it, and the first is another
 * one than the copy's. */
static void check_over(const struct msg_copy_append *m)
{
    const struct log_chain end = rig.files.chain;
    struct wal_fork fork;
    struct wal_refusal refusal;
    uint32_t listed[GIVEN_UP_MAX];
    size_t count;
    given_up_unpack(m->bytes, listed, &count);
    enum wal_fork_verdict verdict = wal_copy_fork(&rig.files, m, &fork, &refusal);
    if (verdict == WAL_FORK_REFUSED) {
        assert(refusal.code == SH_BAD_REQUEST || refusal.code == SH_CONFLICT);
        assert(refusal.expected == (refusal.code == SH_CONFLICT ? end.position : 0));
    } else if (verdict == WAL_FORK_FOUND) {
        uint64_t at = fork.at.position - m->position;
        struct frame_header h;
        size_t size;
        assert(fork.base_lsn == 1 && fork.at.position >= m->position && fork.at.position < end.position);
        assert(fork.goes != fork.comes && at < m->bytes.len);
        uint32_t salt = rig.files.segment.salt;
        struct slice bytes = slice_of(m->bytes.data + at, m->bytes.len - at);
        if (memcmp(bytes.data, "SHANGA", sizeof "SHANGA" - 1) == 0) {
            salt = segment_salt(log_id, fork.at.next_lsn);
            bytes = slice_of(bytes.data + SEGMENT_HEADER_BYTES, bytes.len - SEGMENT_HEADER_BYTES);
        }
        enum sh_error error = frame_verify(bytes, salt, FRAME_BYTES_MAX, &h, &size);
        assert(error == SH_OK && h.checksum == fork.comes);
        assert(h.previous_checksum == fork.at.checksum && h.base_lsn == fork.at.next_lsn);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_of(data, size);
    struct buf bytes = {0};
    if (rig.fs == NULL)
        make_copy();
    struct log_chain chain = rig.files.chain;
    unsigned flags = (unsigned)take(&input, 1);
    if ((flags & 1) != 0)
        chain = log_chain_of(&rig.files.segment);
    struct msg_copy_append m = {.log = log_id, .anew = (flags & 2) != 0};
    m.position = near(chain.position, &input);
    size_t at = take(&input, 2);
    uint8_t flip = (flags & 4) != 0 ? (uint8_t)take(&input, 1) : 0;
    if ((flags & 8) == 0)
        describe(&bytes, chain, &input);
    buf_append(&bytes, input.data, (flags & 16) != 0 ? input.len : 0);
    if (bytes.len > 0)
        bytes.data[at % bytes.len] ^= flip;
    m.bytes = buf_slice(&bytes);
    m.over = (flags & 32) != 0;
    if (m.over && m.bytes.len > 0 && m.position < rig.files.chain.position)
        check_over(&m);
    else
        check(&m);
    buf_free(&bytes);
    return 0;
}
