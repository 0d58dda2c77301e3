/* replsvc's shell: where segments begin, and where a member's frames part from those in the files. */
#include <fcntl.h>

#include "repl_shell.h"
#include "repl_story.h"
#include "sim_disk.h"

static const char dir[] = "/log";
static struct sim_disk *disk;
static const struct vfs *fs;
static struct model_log here, there;

static void append(struct model_log *log, unsigned fill, uint32_t bytes, bool roll)
{
    model_log_append(log, bytes, 10, fill, roll);
    model_log_sync_all(log);
}

static void write_file(const char *path, struct slice bytes)
{
    int fd = fs->open(fs, path, O_RDWR | O_CREAT, 0640);
    assert_true(fd >= 0);
    assert_int_equal(vfs_write_all(fs, fd, bytes.data, bytes.len, 0), 0);
    fs->close(fs, fd);
}

static size_t end_of_segment(const struct model_log *log, size_t first)
{
    size_t end = first + 1;
    while (end < log->count && !log->frames[end].opens)
        end++;
    return end;
}

/* Each segment of the log as a file. */
static void write_log(const struct model_log *log)
{
    for (size_t i = 0, end; i < log->count; i = end) {
        char path[PATH_MAX], name[SEGMENT_NAME_MAX];
        end = end_of_segment(log, i);
        segment_name(log->frames[i].segment, name);
        snprintf(path, sizeof path, "%s/%s", dir, name);
        write_file(
            path, model_log_bytes(log, log->frames[i].before.position, log->frames[end - 1].behind.position));
    }
}

static int begin_files(void **state)
{
    (void)state;
    disk = sim_disk_open();
    fs = sim_disk_vfs(disk);
    assert_int_equal(fs->mkdir(fs, dir, 0750), 0);
    model_log_open(&here, peer_log(1));
    model_log_open(&there, peer_log(1));
    for (unsigned i = 0; i < 12; i++) {
        append(&here, i < 8 ? i : 2000 + i, 400, i % 4 == 3);
        append(&there, i < 8 ? i : 1000 + i, 400, i % 4 == 3);
    }
    write_log(&here);
    return 0;
}

static int end_files(void **state)
{
    (void)state;
    model_log_free(&here);
    model_log_free(&there);
    sim_disk_close(disk);
    return 0;
}

static void assert_begins(uint64_t position, const struct log_chain *expected)
{
    struct log_chain begins;
    assert_int_equal(repl_back_find(fs, dir, here.id, position, &begins), expected != NULL);
    if (expected == NULL)
        return;
    assert_int_equal(begins.position, expected->position);
    assert_int_equal(begins.next_lsn, expected->next_lsn);
    assert_int_equal(begins.checksum, expected->checksum);
}

static void test_the_newest_segment_at_or_before_a_place_is_found(void **state)
{
    (void)state;
    for (uint64_t position = 0; position < model_log_end(&here).position + 100; position += 50) {
        struct log_chain begins;
        assert_true(model_log_begins(&here, position, &begins));
        assert_begins(position, &begins);
        assert_begins(begins.position, &begins);
    }
}

static void name_of(uint64_t segment, char path[PATH_MAX])
{
    char name[SEGMENT_NAME_MAX];
    segment_name(segment, name);
    snprintf(path, PATH_MAX, "%s/%s", dir, name);
}

static void test_a_damaged_header_is_passed_over(void **state)
{
    (void)state;
    char path[PATH_MAX];
    struct log_chain newest, before;
    assert_true(model_log_begins(&here, UINT64_MAX, &newest));
    assert_true(model_log_begins(&here, newest.position - 1, &before));
    name_of(newest.next_lsn, path);
    write_file(path, slice_str("SHANGB"));
    assert_begins(UINT64_MAX, &before);
}

static void test_where_nothing_is_left_nothing_is_found(void **state)
{
    (void)state;
    struct log_chain first;
    char path[PATH_MAX];
    assert_true(model_log_begins(&here, 0, &first));
    name_of(first.next_lsn, path);
    assert_int_equal(fs->unlink(fs, path), 0); /* trimmed */
    assert_begins(first.position, NULL);
    struct log_chain begins;
    assert_false(repl_back_find(fs, "/nowhere", here.id, UINT64_MAX, &begins));
    assert_false(repl_back_find(fs, dir, peer_log(2), UINT64_MAX, &begins));
}

/* From the start of a segment, as much as a source sends. */
static bool compare(const struct model_log *its, struct log_chain from, size_t bytes, struct repl_fork *fork)
{
    struct buf out = {0}, scratch = {0};
    const struct repl_serve serve = {.log = its->id,
                                     .from = from,
                                     .durable = model_log_durable(its),
                                     .most_bytes = bytes,
                                     .most_entries = UINT64_MAX};
    struct msg_fetch_reply reply;
    model_log_serve(its, &serve, &out, &reply);
    assert_int_equal(reply.state, LOG_COPY_FRAMES);
    const struct repl_find_fork parts = {.log = here.id,
                                         .from = from,
                                         .durable_end = model_log_durable(&here).position,
                                         .bytes = buf_slice(&out)};
    struct log_reader *reader = log_reader_open(fs, dir, here.id);
    bool good = repl_back_parts(reader, &parts, &scratch, fork);
    log_reader_close(reader);
    buf_free(&out);
    buf_free(&scratch);
    return good;
}

static uint32_t first_checksum(const struct model_log *log, size_t index)
{
    const struct model_frame *f = &log->frames[index];
    return repl_fork_first(model_log_bytes(log, f->before.position, f->behind.position));
}

static void test_the_place_where_they_part_is_found(void **state)
{
    (void)state;
    struct slice all = model_log_bytes(&there, 0, model_log_end(&there).position);
    size_t parts = model_log_differs(&here, 0, all);
    struct repl_fork fork;
    struct log_chain from;
    assert_true(model_log_begins(&here, here.frames[parts].before.position, &from));
    for (size_t bytes = 1; bytes < 3000; bytes += 100) {
        assert_true(compare(&there, from, bytes, &fork));
        if (fork.all_same) {
            assert_true(fork.at.position <= here.frames[parts].before.position);
            from = fork.at;
            continue;
        }
        assert_int_equal(fork.at.position, here.frames[parts].before.position);
        assert_int_equal(fork.at.next_lsn, here.frames[parts].before.next_lsn);
        assert_int_equal(fork.at.checksum, here.frames[parts].before.checksum);
        assert_true(fork.has_own);
        assert_int_equal(fork.own, first_checksum(&here, parts));
        assert_int_equal(fork.theirs, first_checksum(&there, parts));
    }
    assert_false(fork.all_same);
}

/* Their first other frame is a short one, ours is long. */
static void test_a_frame_that_is_longer_than_theirs_is_read_all_the_same(void **state)
{
    (void)state;
    struct repl_fork fork;
    struct log_chain end = model_log_end(&here);
    append(&here, 1, 9000, false);
    model_log_free(&there);
    model_log_open(&there, here.id);
    uint64_t ignored;
    assert_int_equal(model_log_take(&there, 0, model_log_bytes(&here, 0, end.position), false, &ignored),
                     SH_OK);
    model_log_sync_all(&there);
    append(&there, 2, 10, false);
    write_log(&here);
    assert_true(compare(&there, end, 1, &fork));
    assert_true(fork.has_own && !fork.all_same);
    assert_int_equal(fork.at.position, end.position);
    assert_int_equal(fork.own, first_checksum(&here, here.count - 1));
}

static void test_frames_that_continue_the_log_part_at_its_end(void **state)
{
    (void)state;
    struct repl_fork fork;
    struct log_chain end = model_log_end(&here), from;
    append(&here, 77, 100, false); /* not in the files */
    assert_true(model_log_begins(&here, UINT64_MAX, &from));
    model_log_free(&there);
    model_log_open(&there, here.id);
    uint64_t ignored;
    struct slice all = model_log_bytes(&here, 0, model_log_end(&here).position);
    assert_int_equal(model_log_take(&there, 0, all, false, &ignored), SH_OK);
    model_log_sync_all(&there);
    here.durable--;
    here.count--;
    assert_true(compare(&there, from, 1 << 20, &fork));
    assert_false(fork.all_same || fork.has_own);
    assert_int_equal(fork.at.position, end.position);
}

static void test_what_cannot_be_read_is_told(void **state)
{
    (void)state;
    struct repl_fork fork;
    struct log_chain from = here.frames[0].before;
    char path[PATH_MAX];
    name_of(here.frames[0].segment, path);
    write_file(path, slice_of((const uint8_t[200]){0}, 200));
    assert_false(compare(&there, from, 1000, &fork));
}

#undef TEST
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_files, end_files)

int main(void)
{
    log_set_level((enum log_level)(LOG_ERROR + 1));
    const struct CMUnitTest tests[] = {
        TEST(test_the_newest_segment_at_or_before_a_place_is_found),
        TEST(test_a_damaged_header_is_passed_over),
        TEST(test_where_nothing_is_left_nothing_is_found),
        TEST(test_the_place_where_they_part_is_found),
        TEST(test_a_frame_that_is_longer_than_theirs_is_read_all_the_same),
        TEST(test_frames_that_continue_the_log_part_at_its_end),
        TEST(test_what_cannot_be_read_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
