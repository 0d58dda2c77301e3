/* The configuration loader on any bytes. What it takes it must show, and take again as shown. */
#include <assert.h>
#include <string.h>

#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config first, again;
    struct buf errors = {0}, shown = {0}, twice = {0}, ignored = {0};
    if (config_parse("fuzz.yaml", slice_of(data, size), NULL, &first, &errors)) {
        assert(errors.len == 0);
        config_show(&first, &shown);
        bool good = config_parse("shown.yaml", buf_slice(&shown), NULL, &again, &errors);
        assert(good);
        config_show(&again, &twice);
        assert(slice_equal(buf_slice(&shown), buf_slice(&twice)));
        config_reload(&first, &again, &ignored);
        assert(ignored.len == 0);
        config_free(&again);
        config_free(&first);
    } else {
        assert(errors.len > 0 && memchr(errors.data, 0, errors.len) == NULL);
    }
    buf_free(&errors);
    buf_free(&shown);
    buf_free(&twice);
    buf_free(&ignored);
    return 0;
}
