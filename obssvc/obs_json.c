/* A recursive descent over the text: each step leaves the place behind what it has read, or says no. */
#include "obs_json.h"

#include <string.h>

#include "log.h"

struct reader {
    const uint8_t *at, *end;
};

static bool is_next(const struct reader *r, char c)
{
    return r->at < r->end && *r->at == (uint8_t)c;
}

static bool take(struct reader *r, char c)
{
    if (!is_next(r, c))
        return false;
    r->at++;
    return true;
}

static void skip_spaces(struct reader *r)
{
    while (is_next(r, ' ') || is_next(r, '\t') || is_next(r, '\n') || is_next(r, '\r'))
        r->at++;
}

static bool skip_digits(struct reader *r)
{
    const uint8_t *start = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
        r->at++;
    return r->at > start;
}

static bool skip_word(struct reader *r, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len) != 0)
        return false;
    r->at += len;
    return true;
}

/* The value of a hexadecimal digit, -1 of anything else. */
static int hex_of(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* What follows a \u. */
static bool take_unit(struct reader *r, uint32_t *unit)
{
    *unit = 0;
    for (int i = 0; i < 4; i++, r->at++) {
        if (r->at == r->end || hex_of(*r->at) < 0)
            return false;
        *unit = *unit << 4 | (uint32_t)hex_of(*r->at);
    }
    return true;
}

/* Of a pair of surrogates both. */
static bool take_rune(struct reader *r, uint32_t *rune)
{
    uint32_t low;
    if (!take_unit(r, rune) || (*rune >= 0xdc00 && *rune <= 0xdfff))
        return false;
    if (*rune < 0xd800 || *rune > 0xdfff)
        return true;
    if (!take(r, '\\') || !take(r, 'u') || !take_unit(r, &low) || low < 0xdc00 || low > 0xdfff)
        return false;
    *rune = 0x10000 + ((*rune - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

static bool take_escape(struct reader *r, uint32_t *rune)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (r->at == r->end || *r->at == 0)
        return false;
    uint8_t c = *r->at++;
    if (c == 'u')
        return take_rune(r, rune);
    const char *place = strchr(from, c);
    if (place != NULL)
        *rune = (uint8_t)to[place - from];
    return place != NULL;
}

static bool skip_text(struct reader *r)
{
    uint32_t rune;
    const uint8_t *start = r->at + 1;
    if (!take(r, '"'))
        return false;
    while (r->at < r->end && *r->at != '"') {
        if (*r->at < 0x20)
            return false;
        if (*r->at++ == '\\' && !take_escape(r, &rune))
            return false;
    }
    return utf8_valid(slice_of(start, (size_t)(r->at - start))) && take(r, '"');
}

static bool skip_number(struct reader *r)
{
    take(r, '-');
    if (!take(r, '0') && !skip_digits(r))
        return false;
    if (take(r, '.') && !skip_digits(r))
        return false;
    if (!take(r, 'e') && !take(r, 'E'))
        return true;
    if (!take(r, '+'))
        take(r, '-');
    return skip_digits(r);
}

static bool skip_value(struct reader *r, unsigned depth);

static bool skip_name(struct reader *r)
{
    if (!skip_text(r))
        return false;
    skip_spaces(r);
    return take(r, ':');
}

static bool skip_list(struct reader *r, char open, char close, unsigned depth)
{
    if (!take(r, open) || depth == OBS_JSON_DEPTH)
        return false;
    skip_spaces(r);
    if (take(r, close))
        return true;
    do {
        skip_spaces(r);
        if (open == '{' && !skip_name(r))
            return false;
        skip_spaces(r);
        if (!skip_value(r, depth + 1))
            return false;
        skip_spaces(r);
    } while (take(r, ','));
    return take(r, close);
}

static bool skip_value(struct reader *r, unsigned depth)
{
    if (is_next(r, '{'))
        return skip_list(r, '{', '}', depth);
    if (is_next(r, '['))
        return skip_list(r, '[', ']', depth);
    if (is_next(r, '"'))
        return skip_text(r);
    return skip_word(r, "true") || skip_word(r, "false") || skip_word(r, "null") || skip_number(r);
}

static struct reader reader_of(struct slice text)
{
    return (struct reader){text.data, text.data + text.len};
}

bool obs_json_is_object(struct slice text)
{
    struct reader r = reader_of(text);
    skip_spaces(&r);
    if (!is_next(&r, '{') || !skip_value(&r, 0))
        return false;
    skip_spaces(&r);
    return r.at == r.end;
}

/* ---------------------------------------------------------------- members */

bool obs_json_next(struct slice *rest, struct obs_json_member *member)
{
    struct reader r = reader_of(*rest);
    skip_spaces(&r);
    if (!take(&r, '{'))
        take(&r, ',');
    skip_spaces(&r);
    const uint8_t *start = r.at;
    if (!skip_text(&r))
        return false;
    member->name = slice_of(start + 1, (size_t)(r.at - start) - 2);
    skip_spaces(&r);
    take(&r, ':');
    skip_spaces(&r);
    start = r.at;
    skip_value(&r, 1);
    member->value = slice_of(start, (size_t)(r.at - start));
    *rest = slice_of(r.at, (size_t)(r.end - r.at));
    return true;
}

bool obs_json_find(struct slice object, const char *name, struct slice *value)
{
    struct obs_json_member member;
    bool found = false;
    while (obs_json_next(&object, &member))
        if (slice_is(member.name, name)) {
            *value = member.value;
            found = true;
        }
    return found;
}

/* ---------------------------------------------------------------- values */

static size_t put_rune(uint32_t rune, char out[4])
{
    if (rune < 0x80) {
        out[0] = (char)rune;
        return 1;
    }
    size_t len = rune < 0x800 ? 2 : rune < 0x10000 ? 3 : 4;
    for (size_t i = len; i-- > 1; rune >>= 6)
        out[i] = (char)(0x80 | (rune & 0x3f));
    out[0] = (char)((0xf00 >> len & 0xff) | rune);
    return len;
}

bool obs_json_text(struct slice value, char *out, size_t size)
{
    struct reader r = reader_of(value);
    size_t len = 0;
    char bytes[4];
    if (!take(&r, '"'))
        return false;
    while (r.at < r.end && *r.at != '"') {
        uint32_t rune = *r.at;
        size_t more = 1;
        bytes[0] = (char)*r.at++;
        if (rune == '\\' && take_escape(&r, &rune))
            more = put_rune(rune, bytes);
        if (rune == 0 || len + more >= size)
            return false;
        memcpy(out + len, bytes, more);
        len += more;
    }
    out[len] = 0;
    return true;
}

bool obs_json_uint(struct slice value, uint64_t most, uint64_t *out)
{
    uint64_t number = 0;
    for (size_t i = 0; i < value.len; i++) {
        uint64_t digit = value.data[i] - (uint64_t)'0';
        if (digit > 9 || number > (most - digit) / 10 || digit > most)
            return false;
        number = 10 * number + digit;
    }
    *out = number;
    return value.len > 0;
}

bool obs_json_bool(struct slice value, bool *out)
{
    *out = slice_is(value, "true");
    return *out || slice_is(value, "false");
}
