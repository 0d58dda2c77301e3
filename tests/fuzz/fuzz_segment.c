/* A segment file on a simulated disk, with frames that the input describes, damage at a place of its choice,
 * and its other bytes behind: walked frame by frame, and read by the log's reader. Neither may read beyond
 * the file, stand still, or hand out what is no valid frame. */
#include <assert.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "log.h"
#include "log_reader.h"
#include "segment_scan.h"
#include "sim_disk.h"

enum { FRAMES_MAX = 8, READ_MAX = 300 };

static const char dir[] = "/log";
static const struct id16 log_id;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The next bytes of the input as a number; 0 when it is over. */
static uint32_t take(struct slice *input, size_t bytes)
{
    uint32_t value = 0;
    for (; bytes > 0 && input->len > 0; bytes--) {
        value = value << 8 | input->data[0];
        *input = slice_of(input->data + 1, input->len - 1);
    }
    return value;
}

static void add_frame(struct buf *file, struct log_chain *chain, uint32_t salt, struct slice *input)
{
    uint8_t header[FRAME_HEADER_BYTES];
    struct frame_header h = {.kind = (uint8_t)(take(input, 1) % (FRAME_LOSS + 1)),
                             .base_lsn = chain->next_lsn,
                             .previous_checksum = chain->checksum};
    if (h.kind == FRAME_DATA)
        h.count = take(input, 1) + 1;
    if (take(input, 1) % 2 != 0) {
        h.durable_end = chain->position;
        h.durable_lsn = chain->next_lsn - 1;
        h.durable_checksum = chain->checksum;
    }
    size_t body = take(input, 1);
    body = body < input->len ? body : input->len;
    h.body_bytes = (uint32_t)body;
    frame_encode(&h, salt, slice_of(input->data, body), header);
    buf_append(file, header, sizeof header);
    buf_append(file, input->data, body);
    *input = slice_of(input->data + body, input->len - body);
    assert(log_chain_follow(chain, &h));
}

static void make_file(struct buf *file, struct slice input)
{
    uint8_t header[SEGMENT_HEADER_BYTES];
    struct segment_header segment = {.log = log_id, .salt = segment_salt(log_id, 1), .base_lsn = 1};
    segment_header_encode(&segment, header);
    buf_append(file, header, sizeof header);
    struct log_chain chain = log_chain_of(&segment);
    uint32_t frames = take(&input, 1) % (FRAMES_MAX + 1), at = take(&input, 2), flip = take(&input, 1);
    while (frames-- > 0 && input.len > 0)
        add_frame(file, &chain, segment.salt, &input);
    assert(chain.position == file->len);
    buf_append(file, input.data, input.len);
    file->data[at % file->len] ^= (uint8_t)flip;
}

static void check_frame(const struct frame_header *h, struct slice bytes, uint32_t salt)
{
    struct frame_header again;
    size_t len;
    assert(frame_verify(bytes, salt, FRAME_BYTES_MAX, &again, &len) == SH_OK);
    assert(len == bytes.len && again.checksum == h->checksum && again.base_lsn == h->base_lsn);
}

/* As recovery does: frames up to the first bad one, then the valid ones behind it. */
static void scan(const struct vfs *fs)
{
    struct segment_header segment;
    struct frame_header h;
    struct segment_scan scan;
    struct segment_search search;
    struct slice bytes;
    uint64_t file_bytes, before, extent;
    enum scan_result result;
    int fd;
    if (segment_open(fs, dir, log_id, 1, O_RDONLY, &fd, &segment, &file_bytes) != SH_OK)
        return;
    segment_scan_open(&scan, fs, fd, segment.salt, file_bytes);
    struct log_chain chain = log_chain_of(&segment);
    do {
        before = scan.offset;
        result = segment_scan_next(&scan, &h, &bytes);
        assert(result == SCAN_FRAME ? scan.offset == before + bytes.len : scan.offset == before);
        assert(scan.offset <= file_bytes && result != SCAN_FAILED);
        if (result == SCAN_FRAME)
            check_frame(&h, bytes, segment.salt);
    } while (result == SCAN_FRAME && log_chain_follow(&chain, &h));
    scan.offset = before;
    assert(segment_scan_extent(&scan, &extent) && extent >= before && extent <= file_bytes);
    segment_search_open(&search, &scan, &chain);
    while (segment_search_next(&search, file_bytes, &h) == SCAN_FRAME) {
        assert(scan.offset >= before && scan.offset < file_bytes);
        before = scan.offset + 1;
    }
    segment_scan_free(&scan);
    fs->close(fs, fd);
}

/* What one read brought is whole frames, the first of which holds `from`. */
static void check_read(const struct log_read *read, struct slice out)
{
    struct frame_header h;
    size_t len;
    uint64_t lsn = read->from;
    for (size_t at = 0; at < out.len; at += len) {
        assert(frame_verify(slice_of(out.data + at, out.len - at), read->salt, FRAME_BYTES_MAX, &h, &len) ==
               SH_OK);
        assert(h.kind == FRAME_DATA && h.base_lsn <= lsn && lsn < h.base_lsn + h.count);
        lsn = h.base_lsn + h.count;
    }
    assert(read->next == lsn);
}

static void read_all(const struct vfs *fs, uint64_t file_bytes)
{
    struct log_reader *reader = log_reader_open(fs, dir, log_id);
    struct log_read read = {
        .from = 1, .durable_end = file_bytes, .max_bytes = READ_MAX, .max_entries = READ_MAX};
    struct buf out = {0};
    for (;;) {
        out.len = 0;
        uint64_t next = 0;
        enum sh_error error = log_reader_read(reader, &read, &out);
        if (error == SH_OK) {
            check_read(&read, buf_slice(&out));
            next = read.next;
        } else if (error == SH_CORRUPT) {
            assert(read.bad_offset <= file_bytes);
            next = read.good_lsn;
        }
        if (next <= read.from)
            break;
        read.from = next;
    }
    buf_free(&out);
    log_reader_close(reader);
}

/* One disk with one file for all inputs: a fresh one costs much more than the rest. */
static const struct vfs *put_file(const struct buf *file)
{
    static struct sim_disk *disk;
    char name[SEGMENT_NAME_MAX], path[PATH_MAX];
    bool is_new = disk == NULL;
    if (is_new)
        disk = sim_disk_open();
    const struct vfs *fs = sim_disk_vfs(disk);
    assert(!is_new || fs->mkdir(fs, dir, 0700) == 0);
    segment_name(1, name);
    vfs_path(path, dir, name);
    int fd = fs->open(fs, path, O_RDWR | O_CREAT, 0600);
    assert(fd >= 0 && fs->truncate(fs, fd, 0) == 0);
    assert(vfs_write_all(fs, fd, file->data, file->len, 0) == 0);
    fs->close(fs, fd);
    return fs;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf file = {0};
    log_set_level(LOG_ERROR + 1); /* damage is told as an error */
    make_file(&file, slice_of(data, size));
    const struct vfs *fs = put_file(&file);
    scan(fs);
    read_all(fs, file.len);
    buf_free(&file);
    return 0;
}
