/* What a repair never does: overwrite what is good, write what doesn't fit on both sides. Each refusal is
 * provoked. */
#include "bytes.h"
#include "crc32c.h"
#include "repair_story.h"

static void test_what_is_not_damaged_is_never_overwritten_with_other_bytes(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    struct buf other = {0};
    struct frame_header h;
    size_t size;
    buf_append(&other, k->bytes.data, k->at[21]);
    uint8_t *frame = other.data + k->at[20];
    assert_int_equal(frame_verify(slice_of(frame, k->at[21] - k->at[20]), segment_salt(repair.log, k->base),
                                  SEGMENT, &h, &size),
                     SH_OK);
    frame[size - 1] ^= 1; /* a valid frame, that continues the chain */
    frame_encode(&h, segment_salt(repair.log, k->base), slice_of(frame + FRAME_HEADER_BYTES, h.body_bytes),
                 frame);
    assert_refused(send_bytes(k->base, k->at[20], slice_of(frame, size)), SH_CONFLICT, "not damaged");
    assert_refused(send_bytes(k->base, 0, buf_slice(&other)), SH_CONFLICT, "not damaged");
    assert_whole();
    flip_frame(k, 20); /* now it is, but those behind it name another */
    assert_refused(send_bytes(k->base, k->at[20], slice_of(frame, size)), SH_CONFLICT, "meet");
    buf_free(&other);
}

static void test_another_header_is_refused(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    uint8_t bytes[SEGMENT_HEADER_BYTES] = {0};
    struct segment_header h;
    struct slice sent = slice_of(bytes, sizeof bytes);
    assert_int_equal(segment_header_decode(buf_slice(&k->bytes), &h), SH_OK);
    h.created_ns++;
    segment_header_encode(&h, bytes);
    assert_refused(send_bytes(k->base, 0, sent), SH_CONFLICT, "not damaged");
    flip(k, 41);
    for (unsigned wrong = 0; wrong < 2; wrong++) {
        assert_int_equal(segment_header_decode(buf_slice(&k->bytes), &h), SH_OK);
        h.position += wrong == 0;
        h.previous_checksum += wrong == 1;
        segment_header_encode(&h, bytes);
        assert_refused(send_bytes(k->base, 0, sent), SH_CONFLICT,
                       wrong == 0 ? "position" : "continue the segment before");
    }
    assert_refused(send_bytes(k->base, 0, saved(&kept[2], 0, SEGMENT_HEADER_BYTES)), SH_BAD_REQUEST,
                   "another");
    assert_refused(send_bytes(k->base, 0, saved(k, 0, SEGMENT_HEADER_BYTES - 1)), SH_BAD_REQUEST, "header");
    memcpy(bytes, k->bytes.data, sizeof bytes);
    bytes[6] = 2;
    put_u32(bytes + 60, crc32c(segment_salt(repair.log, k->base), bytes, 60));
    assert_refused(send_bytes(k->base, 0, sent), SH_VERSION_MISMATCH, "version");
    /* Its log's, by the same name. */
    assert_int_equal(segment_header_decode(buf_slice(&k->bytes), &h), SH_OK);
    h.log.bytes[0] ^= 1;
    h.salt = segment_salt(h.log, h.base_lsn);
    segment_header_encode(&h, bytes);
    assert_refused(send_bytes(k->base, 0, sent), SH_BAD_REQUEST, "another");
    /* The first segment's is known whatever stands around. */
    flip(&kept[0], 41);
    assert_int_equal(segment_header_decode(buf_slice(&kept[0].bytes), &h), SH_OK);
    h.position = 1;
    segment_header_encode(&h, bytes);
    assert_refused(send_bytes(1, 0, sent), SH_CONFLICT, "first segment");
}

/* With the end of the segment before damaged too, the position must fit what stands behind. */
static void test_a_header_must_have_the_right_position(void **state)
{
    (void)state;
    const struct kept *a = &kept[1], *b = &kept[2], *last = &kept[kept_count - 1];
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    struct segment_header h;
    flip_frame(a, a->frames - 1);
    flip(b, 41);
    assert_int_equal(segment_header_decode(buf_slice(&b->bytes), &h), SH_OK);
    h.position += 8;
    segment_header_encode(&h, bytes);
    assert_refused(send_bytes(b->base, 0, slice_of(bytes, sizeof bytes)), SH_CONFLICT, "position");
    assert_int_equal(send_saved(b, 0, SEGMENT_HEADER_BYTES), SH_OK);
    flip_frame(&kept[kept_count - 2], kept[kept_count - 2].frames - 1);
    flip(last, 41);
    assert_refused(send_saved(last, 0, SEGMENT_HEADER_BYTES), SH_CONFLICT, "behind");
}

static void test_bytes_that_are_no_frames_are_refused(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    flip_frame(k, 20);
    struct buf bad = {0};
    buf_append(&bad, k->bytes.data + k->at[20], k->at[22] - k->at[20]);
    for (size_t at = 0; at < k->at[21] - k->at[20]; at++) {
        bad.data[at] ^= 0x10;
        assert_refused(send_bytes(k->base, k->at[20], slice_of(bad.data, k->at[21] - k->at[20])),
                       SH_BAD_REQUEST, "whole, valid");
        bad.data[at] ^= 0x10;
    }
    assert_refused(send_saved(k, k->at[20], k->at[21] - 1), SH_BAD_REQUEST, "whole, valid");
    assert_refused(send_saved(k, k->at[20], k->at[20] + 1), SH_BAD_REQUEST, "whole, valid");
    assert_refused(send_saved(k, k->at[20], k->at[20]), SH_BAD_REQUEST, "bytes");
    assert_refused(send_bytes(0, k->at[20], saved(k, k->at[20], k->at[21])), SH_BAD_REQUEST, "segment");
    buf_free(&bad);
    assert_repaired(send_saved(k, k->at[20], k->at[21]), k, k->at[21]);
}

static void encode_frame(struct buf *out, struct frame_header *h, uint32_t salt, struct slice body)
{
    uint8_t header[FRAME_HEADER_BYTES];
    h->body_bytes = (uint32_t)body.len;
    frame_encode(h, salt, body, header);
    buf_append(out, header, sizeof header);
    buf_append(out, body.data, body.len);
}

static void test_a_frame_with_malformed_entries_is_refused(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    struct frame_header h;
    size_t size;
    struct buf frame = {0};
    uint32_t salt = segment_salt(repair.log, k->base);
    assert_int_equal(frame_verify(saved(k, k->at[20], k->at[21]), salt, SEGMENT, &h, &size), SH_OK);
    encode_frame(&frame, &h, salt, slice_str("no entries"));
    flip_frame(k, 20);
    assert_refused(send_bytes(k->base, k->at[20], buf_slice(&frame)), SH_BAD_REQUEST, "well-formed");
    buf_free(&frame);
}

static void test_frames_that_do_not_continue_are_refused(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    flip_frame(k, 20);
    flip_frame(k, 21);
    assert_refused(send_bytes(k->base, k->at[20], saved(k, k->at[21], k->at[22])), SH_CONFLICT, "continue");
    assert_int_equal(refusal.expected, k->at[20]);
    assert_refused(send_bytes(kept[2].base, kept[2].at[20], saved(k, k->at[20], k->at[21])), SH_CONFLICT,
                   "not damaged");
    /* Of another segment: its salt is another. */
    assert_refused(send_bytes(k->base, k->at[20], saved(&kept[2], kept[2].at[20], kept[2].at[21])),
                   SH_BAD_REQUEST, "whole, valid");
    /* A first frame that is no checkpoint. */
    memset(bytes_of(k->base) + k->at[0], 0, k->at[3] - k->at[0]);
    assert_refused(send_bytes(k->base, k->at[0], saved(k, k->at[1], k->at[2])), SH_CONFLICT, "checkpoint");
}

static void test_frames_that_miss_or_pass_the_end_are_refused(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    struct buf more = {0};
    struct frame_header h;
    size_t size;
    uint32_t salt = segment_salt(repair.log, k->base);
    struct entry entry = {.kind = ENTRY_EVENT, .value = payload_of(1)};
    struct buf body = {0};
    msgpack_packer pk;
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, 1);
    entry_pack(&pk, &entry);
    assert_int_equal(frame_verify(saved(k, k->at[20], k->at[21]), salt, SEGMENT, &h, &size), SH_OK);
    buf_append(&more, k->bytes.data + k->at[20], size);
    struct frame_header next = {
        .kind = FRAME_DATA, .base_lsn = h.base_lsn + 1, .count = 1, .previous_checksum = h.checksum};
    encode_frame(&more, &next, salt, buf_slice(&body));
    flip_frame(k, 20);
    assert_refused(send_bytes(k->base, k->at[20], buf_slice(&more)), SH_CONFLICT, "run over");
    /* The same at the end of a segment, where only the next one's header bounds it. */
    size_t last = k->frames - 1;
    assert_int_equal(frame_verify(saved(k, k->at[last], k->at[last + 1]), salt, SEGMENT, &h, &size), SH_OK);
    more.len = 0;
    buf_append(&more, k->bytes.data + k->at[last], size);
    next.base_lsn = h.base_lsn + 1;
    next.previous_checksum = h.checksum;
    encode_frame(&more, &next, salt, buf_slice(&body));
    flip_frame(k, last);
    assert_refused(send_bytes(k->base, k->at[last], buf_slice(&more)), SH_CONFLICT, "run over");
    buf_free(&more);
    buf_free(&body);
}

static void test_a_repair_begins_where_the_damage_does(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    flip_frame(k, 20);
    flip_frame(k, 21);
    flip_frame(k, 22);
    assert_refused(send_saved(k, k->at[21], k->at[23]), SH_CONFLICT, "further in front");
    assert_int_equal(refusal.expected, k->at[20]);
    assert_refused(send_saved(k, k->at[10] + 1, k->at[23]), SH_CONFLICT, "across");
    assert_refused(send_saved(k, 10, k->at[23]), SH_BAD_REQUEST, "header");
    flip(k, 41);
    assert_refused(send_saved(k, k->at[20], k->at[23]), SH_CONFLICT, "that comes first");
    assert_int_equal(rig.fs->unlink(rig.fs, path_of(k->base)), 0);
    assert_refused(send_saved(k, k->at[20], k->at[23]), SH_CONFLICT, "that comes first");
}

static void test_segments_and_logs_that_are_not_there(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    assert_refused(send_bytes(100000, 0, saved(k, 0, k->at[1])), SH_NOT_FOUND, "ends before");
    struct msg_repair request = {
        .log.bytes = {1}, .segment = k->base, .offset = k->at[1], .bytes = saved(k, k->at[1], k->at[2])};
    assert_refused(wal_repair(&repair, &request, rig.log.durable.end, &reply, &refusal), SH_NOT_FOUND,
                   "hold that log");
    request.log = repair.log;
    assert_int_equal(wal_repair(&repair, &request, rig.log.durable.end, &reply, &refusal), SH_OK);
}

/* The end of the log is the committer's. */
static void test_nothing_is_written_above_the_durable_end(void **state)
{
    (void)state;
    const struct kept *k = &kept[kept_count - 1];
    uint64_t end = k->at[k->frames];
    assert_refused(send_bytes(k->base, end, saved(k, k->at[1], k->at[2])), SH_CONFLICT, "behind");
    flip_frame(k, k->frames - 1);
    assert_refused(send_saved(k, k->at[k->frames - 1], end), SH_CONFLICT, "behind");
    rig_append(&rig, 7, 1, ENTRIES + 1, payload_of(ENTRIES + 1)); /* not synced: it proves nothing yet */
    assert_true(rig_write(&rig));
    assert_refused(send_saved(k, k->at[k->frames - 1], end), SH_CONFLICT, "behind");
}

/* A name alone makes no segment: what lies between the two around it is all there. */
static void test_no_segment_is_made_where_valid_frames_stand(void **state)
{
    (void)state;
    const struct kept *k = &kept[0];
    struct frame_header before, checkpoint;
    size_t size;
    struct buf sent = {0};
    assert_int_equal(frame_verify(saved(k, k->at[20], k->at[21]), segment_salt(repair.log, k->base), SEGMENT,
                                  &before, &size),
                     SH_OK);
    assert_int_equal(frame_verify(saved(&kept[1], kept[1].at[0], kept[1].at[1]),
                                  segment_salt(repair.log, kept[1].base), SEGMENT, &checkpoint, &size),
                     SH_OK);
    uint64_t base = before.base_lsn + before.count;
    const struct segment_header header = {
        .log = repair.log,
        .salt = segment_salt(repair.log, base),
        .previous_checksum = before.checksum,
        .base_lsn = base,
        .position = k->at[21], /* as the first of the log it begins at 0 */
    };
    segment_header_encode(&header, buf_reserve(&sent, SEGMENT_HEADER_BYTES));
    sent.len = SEGMENT_HEADER_BYTES;
    checkpoint.base_lsn = base;
    checkpoint.previous_checksum = before.checksum;
    checkpoint.durable_end = checkpoint.durable_lsn = checkpoint.durable_checksum = 0;
    encode_frame(&sent, &checkpoint, header.salt,
                 saved(&kept[1], kept[1].at[0] + FRAME_HEADER_BYTES, kept[1].at[1]));
    assert_refused(send_bytes(base, 0, buf_slice(&sent)), SH_CONFLICT, "among valid frames");
    assert_whole();
    flip_frame(k, 21); /* those behind it are still there */
    assert_refused(send_bytes(base, 0, buf_slice(&sent)), SH_CONFLICT, "among valid frames");
    assert_null(sim_disk_file(disk, path_of(base)).data);
    buf_free(&sent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        REPAIR_TEST(test_what_is_not_damaged_is_never_overwritten_with_other_bytes),
        REPAIR_TEST(test_another_header_is_refused),
        REPAIR_TEST(test_a_header_must_have_the_right_position),
        REPAIR_TEST(test_bytes_that_are_no_frames_are_refused),
        REPAIR_TEST(test_a_frame_with_malformed_entries_is_refused),
        REPAIR_TEST(test_frames_that_do_not_continue_are_refused),
        REPAIR_TEST(test_frames_that_miss_or_pass_the_end_are_refused),
        REPAIR_TEST(test_a_repair_begins_where_the_damage_does),
        REPAIR_TEST(test_segments_and_logs_that_are_not_there),
        REPAIR_TEST(test_nothing_is_written_above_the_durable_end),
        REPAIR_TEST(test_no_segment_is_made_where_valid_frames_stand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
