/* XXH3 by libxxhash. Nothing here is fatal but running out of memory. */
#include "digest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct digest_state *digest_open(void)
{
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL)
        abort();
    XXH3_128bits_reset(state);
    return (struct digest_state *)state;
}

void digest_add(struct digest_state *state, struct slice bytes)
{
    XXH3_128bits_update((XXH3_state_t *)state, bytes.data, bytes.len);
}

struct digest128 digest_close(struct digest_state *state)
{
    struct digest128 out;
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest((XXH3_state_t *)state));
    _Static_assert(sizeof canonical.digest == sizeof out.bytes, "128 bits");
    memcpy(out.bytes, canonical.digest, sizeof out.bytes);
    XXH3_freeState((XXH3_state_t *)state);
    return out;
}

void digest_format(struct digest128 digest, char text[DIGEST_TEXT])
{
    for (size_t i = 0; i < sizeof digest.bytes; i++)
        snprintf(text + 2 * i, 3, "%02x", digest.bytes[i]);
}

bool digest_equal(struct digest128 a, struct digest128 b)
{
    return memcmp(a.bytes, b.bytes, sizeof a.bytes) == 0;
}

uint64_t digest64(struct slice bytes)
{
    return XXH3_64bits(bytes.data, bytes.len);
}
