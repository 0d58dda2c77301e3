/* Headers of events: a msgpack map of names to any bytes. Nothing here is fatal. */
#include "sh_internal.h"

#include "log.h"

enum sh_error shc_headers_check(const struct sh_header *headers, uint32_t count, const char **why)
{
    size_t bytes = 0;
    *why = "an event has at most 64 headers";
    if (count > HEADERS_MAX)
        return SH_TOO_LARGE;
    for (uint32_t i = 0; i < count; i++) {
        const struct sh_header *h = &headers[i];
        *why = "a header's name is at least one byte of UTF-8";
        if (h->name == NULL || h->name_bytes == 0 || !utf8_valid(slice_of(h->name, h->name_bytes)))
            return SH_BAD_REQUEST;
        *why = "a header's value is missing";
        if (h->value == NULL && h->value_bytes > 0)
            return SH_BAD_REQUEST;
        *why = "the headers exceed the largest frame";
        if (h->name_bytes > FRAME_BYTES_MAX || h->value_bytes > FRAME_BYTES_MAX ||
            (bytes += h->name_bytes + h->value_bytes) > FRAME_BYTES_MAX)
            return SH_TOO_LARGE;
    }
    *why = NULL;
    return SH_OK;
}

void shc_headers_pack(const struct sh_header *headers, uint32_t count, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_map(&pk, count);
    for (uint32_t i = 0; i < count; i++) {
        mp_pack_str(&pk, slice_of(headers[i].name, headers[i].name_bytes));
        mp_pack_bin(&pk, slice_of(headers[i].value, headers[i].value_bytes));
    }
}

bool sh_event_header(const struct sh_event *event, uint32_t index, struct sh_header *out)
{
    struct mp m = mp_of(slice_of(event->headers, event->headers_bytes));
    struct slice name, value;
    uint32_t count;
    if (!mp_map(&m, &count) || index >= count)
        return false;
    for (uint32_t i = 0; i <= index; i++)
        if (!mp_str(&m, &name) || (!mp_str(&m, &value) && !mp_bin(&m, &value)))
            return false;
    *out = (struct sh_header){(const char *)name.data, name.len, value.data, value.len};
    return true;
}
