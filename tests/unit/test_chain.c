/* What makes frames a log: the chain over them, and whose headers and marks they are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bytes.h"
#include "crc32c.h"
#include "log_mark.h"
#include "segment_scan.h"

static const struct id16 log_id = {{1, 2, 3}}, other_log = {{1, 2, 4}};

static void test_only_the_next_frame_follows(void **state)
{
    (void)state;
    const struct log_chain chain = {.next_lsn = 10, .checksum = 77, .position = 1000};
    const struct frame_header good = {.checksum = 78,
                                      .body_bytes = 12,
                                      .base_lsn = 10,
                                      .count = 3,
                                      .previous_checksum = 77,
                                      .durable_end = 900};
    struct frame_header bad[4] = {good, good, good, good};
    bad[0].previous_checksum = 76; /* of another chain */
    bad[1].base_lsn = 11;          /* leaves an LSN out */
    bad[2].base_lsn = 9;           /* gives one twice */
    bad[3].durable_end = 1001;     /* claims to know of itself */
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct log_chain c = chain;
        assert_false(log_chain_follow(&c, &bad[i]));
        assert_memory_equal(&c, &chain, sizeof c);
    }
    struct frame_header knows = good; /* all before it is durable: then it must know the frame before */
    knows.durable_end = 1000, knows.durable_lsn = 9, knows.durable_checksum = 76;
    struct log_chain c = chain;
    assert_false(log_chain_follow(&c, &knows));
    knows.durable_checksum = 77, knows.durable_lsn = 8;
    assert_false(log_chain_follow(&c, &knows));
    knows.durable_lsn = 9;
    assert_true(log_chain_follow(&c, &knows));
    c = chain;
    assert_true(log_chain_follow(&c, &good));
    assert_int_equal(c.next_lsn, 13);
    assert_int_equal(c.checksum, 78);
    assert_int_equal(c.position, 1000 + FRAME_HEADER_BYTES + 12);
}

/* The checksums of its frames would be seeded with something else than the log and the LSN. */
static void test_a_segment_header_with_a_foreign_salt_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    struct segment_header h = {.log = log_id, .salt = segment_salt(log_id, 5), .base_lsn = 5}, out;
    segment_header_encode(&h, bytes);
    assert_int_equal(segment_header_decode(slice_of(bytes, sizeof bytes), &out), SH_OK);
    h.salt++;
    segment_header_encode(&h, bytes);
    assert_int_equal(segment_header_decode(slice_of(bytes, sizeof bytes), &out), SH_CORRUPT);
}

static void test_the_mark_of_another_log_is_no_mark(void **state)
{
    (void)state;
    uint8_t slot[MARK_SLOT_BYTES];
    struct log_mark mark = {.log = log_id, .counter = 3, .durable_end = 500, .durable_lsn = 4}, out;
    log_mark_encode(&mark, slot);
    assert_int_equal(log_mark_decode(slot, log_id, &out), SH_OK);
    assert_int_equal(out.durable_end, 500);
    assert_int_equal(log_mark_decode(slot, other_log, &out), SH_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_the_next_frame_follows),
        cmocka_unit_test(test_a_segment_header_with_a_foreign_salt_is_refused),
        cmocka_unit_test(test_the_mark_of_another_log_is_no_mark),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
