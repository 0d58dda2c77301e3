/* What a member may say of its view: a version vector, and pieces of rows. What is taken must be changes that
 * merge. */
#include <assert.h>
#include <string.h>

#include "view_merge_in.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PIECES = 3 };

struct story {
    struct merge_in in;
    struct view_vector own;
    struct buf last; /* key that was taken last */
    bool own_told;
};

static bool take(void *arg, struct slice key, struct slice change)
{
    struct story *s = arg;
    struct buf merged = {0};
    struct slice last = buf_slice(&s->last);
    size_t len = key.len < last.len ? key.len : last.len;
    int order = len > 0 ? memcmp(key.data, last.data, len) : 0;
    assert(order > 0 || (order == 0 && key.len > last.len));
    if (key.data[0] != VIEW_TIDY) /* which is put as it is */
        assert(view_merge(key, NULL, &change, 1, &merged));
    s->last.len = 0;
    buf_append(&s->last, key.data, key.len);
    buf_free(&merged);
    return true;
}

/* One that the member may have seen. */
static bool next_own(void *arg, struct slice *key, struct slice *row)
{
    static uint8_t bytes[64];
    struct story *s = arg;
    if (s->own_told || s->in.theirs.count == 0)
        return false;
    const struct view_value value = {.version = {1, s->in.theirs.all[0].log, s->in.theirs.all[0].lsn},
                                     .value = slice_str("own")};
    struct buf encoded = {0};
    view_value_encode(&value, &encoded);
    memcpy(bytes, encoded.data, encoded.len);
    *row = slice_of(bytes, encoded.len);
    *key = slice_str("Kown");
    buf_free(&encoded);
    s->own_told = true;
    return true;
}

static void give(struct story *s, struct slice rows, bool more)
{
    const struct merge_in_ends ends = {&s->own, next_own, take, s};
    struct buf before = {0};
    uint64_t taken = s->in.rows;
    buf_append(&before, s->in.last.data, s->in.last.len);
    enum sh_error error = merge_in_piece(&s->in, &ends, rows, more);
    if (error != SH_OK)
        assert(s->in.rows == taken && slice_equal(buf_slice(&before), buf_slice(&s->in.last)));
    buf_free(&before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct story s;
    size_t head = size > 0 ? data[0] : 0;
    s = (struct story){0};
    if (size < 1 + head || !view_vector_decode(slice_of(data + 1, head), &s.in.theirs))
        return 0;
    assert(merge_in_vector(&s.own, &s.in.theirs) == SH_OK);
    s.own.count = s.own.count > 1 ? 1 : 0; /* nothing of the others is applied here */
    struct slice rest = slice_of(data + 1 + head, size - 1 - head);
    for (unsigned i = 0; i < PIECES; i++) {
        size_t len = i + 1 < PIECES ? rest.len / 2 : rest.len;
        give(&s, slice_of(rest.data, len), i + 1 < PIECES);
        rest = slice_of(rest.data + len, rest.len - len);
    }
    merge_in_free(&s.in);
    buf_free(&s.last);
    return 0;
}
