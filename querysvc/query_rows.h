/* Rows of keys as clients get them: the value of a key and its counter, which stand in two places of the
 * view, as one. Nothing here keeps state: any thread that reads the store may call it. */
#ifndef QUERYSVC_QUERY_ROWS_H
#define QUERYSVC_QUERY_ROWS_H

#include "frame.h"
#include "mp.h"
#include "view_store.h"

/* From so many bytes on, an answer takes no further row. */
enum { ROWS_BYTES = 1 << 20 };

/* What the view has of one key. */
struct key_row {
    bool has_value, has_counter;
    struct view_value value;
    int64_t counter;
};

/* False: malformed. *hlc grows with its version. */
bool key_row_take(struct slice row, struct key_row *out, uint64_t *hlc);
/* nil where there is neither. */
void key_row_pack(msgpack_packer *pk, struct slice key, const struct key_row *row, bool keys_only);

/* What a get found. */
struct key_rows {
    struct buf rows;  /* the array, packed; it may end before the keys do, when there are many bytes */
    struct buf names; /* scratch */
    uint64_t hlc;     /* the highest of the values that were looked at */
    uint32_t bunch; /* keys that the next get looks up at first: fewer where rows were large; 0: not known */
};
void key_rows_free(struct key_rows *rows);
/* `keys` are `count` elements of an array that was entered. SH_BAD_REQUEST, SH_TOO_LARGE: one has not 1 to
 * KEY_MAX bytes; SH_INTERNAL: the store failed, as error says. */
enum sh_error key_rows_get(struct view_store *store, struct mp keys, uint32_t count, struct key_rows *out,
                           char error[VIEW_ERROR_MAX]);

#endif
