/* Checksums of first frames that a log's node has given up (docs/adr/0010), as fetch_reply and copy_append
 * list them: a msgpack array. */
#ifndef COMMON_GIVEN_UP_H
#define COMMON_GIVEN_UP_H

#include "mp.h"

enum { GIVEN_UP_MAX = 16 };

/* Appends the array. */
void given_up_pack(const uint32_t *checksums, size_t count, struct buf *out);
/* False: malformed, or too many; *count is 0. No bytes are none. */
bool given_up_unpack(struct slice array, uint32_t out[GIVEN_UP_MAX], size_t *count);
bool given_up_has(const uint32_t *checksums, size_t count, uint32_t checksum);

#endif
