/* Byte ranges: a borrowed one (slice) and a growing, owned one (buf).
 *
 * Running out of memory ends the process: every size is bounded before it reaches here. */
#ifndef COMMON_BUF_H
#define COMMON_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that somebody else owns. data may be NULL when len is 0. */
struct slice {
    const uint8_t *data;
    size_t len;
};

struct slice slice_of(const void *data, size_t len);
struct slice slice_str(const char *text);
bool slice_equal(struct slice a, struct slice b);
bool slice_is(struct slice a, const char *text);

/* Owned bytes; zero-initialise, then buf_free. */
struct buf {
    uint8_t *data;
    size_t len, cap;
};

void buf_free(struct buf *b);
/* Makes room for `more` further bytes; returns where they go (len is unchanged). */
uint8_t *buf_reserve(struct buf *b, size_t more);
void buf_append(struct buf *b, const void *data, size_t len);
void buf_append_str(struct buf *b, const char *text);
__attribute__((format(printf, 2, 3))) void buf_printf(struct buf *b, const char *format, ...);
/* Adds a NUL behind the bytes (not counted in len) and returns them as text. */
const char *buf_cstr(struct buf *b);
struct slice buf_slice(const struct buf *b);

/* malloc, calloc, realloc and strdup that never return NULL. The caller frees with free(). */
void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *text);

#endif
