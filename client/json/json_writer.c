/* The writer, into a buffer. Nothing is fatal. */
#include "json_writer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "clock.h"
#include "log.h"
#include "mp.h"

static void start_value(struct json_writer *j, const char *key)
{
    if (j->comma)
        buf_append_str(&j->out, ",");
    if (key != NULL) {
        json_string(&j->out, slice_str(key));
        buf_append_str(&j->out, ":");
    }
    j->comma = true;
}

void json_open(struct json_writer *j, const char *key, char bracket)
{
    start_value(j, key);
    buf_append(&j->out, &bracket, 1);
    j->comma = false;
}

void json_close(struct json_writer *j, char bracket)
{
    buf_append(&j->out, &bracket, 1);
    j->comma = true;
}

void json_slice(struct json_writer *j, const char *key, struct slice text)
{
    start_value(j, key);
    json_string(&j->out, text);
}

void json_text(struct json_writer *j, const char *key, const char *text)
{
    json_slice(j, key, slice_str(text));
}

void json_uint(struct json_writer *j, const char *key, uint64_t number)
{
    start_value(j, key);
    buf_printf(&j->out, "%" PRIu64, number);
}

void json_int(struct json_writer *j, const char *key, int64_t number)
{
    start_value(j, key);
    buf_printf(&j->out, "%" PRId64, number);
}

void json_real(struct json_writer *j, const char *key, double number, int digits)
{
    if (isfinite(number)) {
        start_value(j, key);
        buf_printf(&j->out, "%.*f", digits, number);
    } else {
        json_null(j, key);
    }
}

void json_double(struct json_writer *j, const char *key, double number)
{
    if (isfinite(number)) {
        start_value(j, key);
        buf_printf(&j->out, "%.15g", number);
    } else {
        json_null(j, key);
    }
}

void json_raw(struct json_writer *j, const char *key, struct slice text)
{
    start_value(j, key);
    buf_append(&j->out, text.data, text.len);
}

void json_bool(struct json_writer *j, const char *key, bool value)
{
    start_value(j, key);
    buf_append_str(&j->out, value ? "true" : "false");
}

void json_null(struct json_writer *j, const char *key)
{
    start_value(j, key);
    buf_append_str(&j->out, "null");
}

void json_uuid(struct json_writer *j, const char *key, const uint8_t id[16])
{
    struct id16 copy;
    char text[ID_TEXT];
    for (size_t i = 0; i < sizeof copy.bytes; i++)
        copy.bytes[i] = id[i];
    id16_format(copy, text);
    json_text(j, key, text);
}

static void base64(struct buf *out, struct slice bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t left = bytes.len - i;
        uint32_t group = (uint32_t)bytes.data[i] << 16;
        group |= left > 1 ? (uint32_t)bytes.data[i + 1] << 8 : 0;
        group |= left > 2 ? bytes.data[i + 2] : 0;
        char text[4] = {digits[group >> 18], digits[group >> 12 & 63],
                        left > 1 ? digits[group >> 6 & 63] : '=', left > 2 ? digits[group & 63] : '='};
        buf_append(out, text, sizeof text);
    }
}

void json_bytes(struct json_writer *j, const char *key, struct slice bytes)
{
    char name[64];
    if (utf8_valid(bytes)) {
        json_slice(j, key, bytes);
        return;
    }
    if (key != NULL)
        snprintf(name, sizeof name, "%s_base64", key);
    start_value(j, key != NULL ? name : NULL);
    buf_append_str(&j->out, "\"");
    base64(&j->out, bytes);
    buf_append_str(&j->out, "\"");
}

static bool msgpack_pairs(struct json_writer *j, struct mp *m, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct slice key;
        char text[128];
        if (!mp_str(m, &key))
            return false;
        snprintf(text, sizeof text, "%.*s", (int)key.len, (const char *)key.data);
        if (!json_msgpack(j, text, m))
            return false;
    }
    return true;
}

/* Depth is bounded by the check of the message that the value comes from. */
bool json_msgpack(struct json_writer *j, const char *key, struct mp *m)
{
    uint64_t number;
    int64_t negative;
    struct slice bytes;
    uint32_t count;
    bool truth;
    if (mp_uint(m, &number)) {
        json_uint(j, key, number);
    } else if (mp_int(m, &negative)) {
        json_int(j, key, negative);
    } else if (mp_bool(m, &truth)) {
        json_bool(j, key, truth);
    } else if (mp_str(m, &bytes)) {
        json_slice(j, key, bytes);
    } else if (mp_bin(m, &bytes)) {
        json_bytes(j, key, bytes);
    } else if (mp_array(m, &count)) {
        json_open(j, key, '[');
        for (uint32_t i = 0; i < count; i++)
            if (!json_msgpack(j, NULL, m))
                return false;
        json_close(j, ']');
    } else if (mp_map(m, &count)) {
        json_open(j, key, '{');
        if (!msgpack_pairs(j, m, count))
            return false;
        json_close(j, '}');
    } else {
        json_null(j, key);
        return mp_nil(m) || mp_skip(m);
    }
    return true;
}

void json_print(struct json_writer *j)
{
    buf_append_str(&j->out, "\n");
    fwrite(j->out.data, 1, j->out.len, stdout);
    buf_free(&j->out);
}
