/* The register given-up. Nothing here is fatal. */
#include "wal_given_up.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checked_text.h"
#include "log.h"
#include "mp.h"

static const char name[] = "given-up", first_line[] = "shanghai given-up 1\n";
enum { CHECKSUM_DIGITS = 8 };
/* The longest lines: "frame ", 20 digits, a blank, 8 digits, newline; and around them the first line, the log
 * and the checksum. */
_Static_assert((int)CHECKED_TEXT_MAX >= GIVEN_UP_MAX * 36 + 20 + 41 + 18, "a full register fits");

/* "123456 0a1b2c3d" */
static bool parse_frame(const char *value, struct wal_given_up_frame *out)
{
    char *end;
    errno = 0;
    if (value[0] < '0' || value[0] > '9')
        return false;
    out->position = strtoull(value, &end, 10);
    if (errno != 0 || *end != ' ' || strlen(end + 1) != CHECKSUM_DIGITS ||
        strspn(end + 1, "0123456789abcdef") != CHECKSUM_DIGITS)
        return false;
    out->checksum = (uint32_t)strtoul(end + 1, NULL, 16);
    return true;
}

static enum sh_error parse(struct wal_given_up *g, struct checked_text *text, struct id16 log)
{
    struct id16 found;
    char *value;
    if (!checked_text_take(text, "log", &value) || !id16_parse(value, &found))
        return SH_CORRUPT;
    if (!id16_equal(found, log))
        return SH_CONFLICT;
    while (g->count < GIVEN_UP_MAX && checked_text_take(text, "frame", &value))
        if (!parse_frame(value, &g->all[g->count++]))
            return SH_CORRUPT;
    return checked_text_at_end(text) ? SH_OK : SH_CORRUPT;
}

enum sh_error wal_given_up_read(struct wal_given_up *g, const struct vfs *fs, const char *dir,
                                struct id16 log)
{
    struct checked_text text;
    *g = (struct wal_given_up){0};
    enum sh_error error = checked_text_read(&text, fs, dir, name, first_line);
    if (error == SH_OK)
        error = parse(g, &text, log);
    if (error == SH_OK || error == SH_NOT_FOUND)
        return SH_OK;
    *g = (struct wal_given_up){0};
    if (error == SH_CORRUPT) {
        log_error("the register of given up chains is damaged, and begins anew: what was given up before "
                  "could be taken again",
                  log_text("dir", dir));
        return SH_OK;
    }
    if (error != SH_INTERNAL)
        log_error(error == SH_CONFLICT ? "the register of given up chains is another log's"
                                       : "the register of given up chains has a format that this version "
                                         "doesn't know",
                  log_text("dir", dir));
    return error;
}

static int write_file(const struct wal_given_up *g, const struct vfs *fs, const char *dir, struct id16 log)
{
    char uuid[ID_TEXT];
    struct buf lines = {0};
    id16_format(log, uuid);
    buf_printf(&lines, "%slog %s\n", first_line, uuid);
    for (size_t i = 0; i < g->count; i++)
        buf_printf(&lines, "frame %" PRIu64 " %08" PRIx32 "\n", g->all[i].position, g->all[i].checksum);
    int result = checked_text_write(&lines, fs, dir, name);
    buf_free(&lines);
    return result;
}

int wal_given_up_add(struct wal_given_up *g, const struct vfs *fs, const char *dir, struct id16 log,
                     const struct wal_given_up_frame *frame)
{
    struct wal_given_up next = *g;
    for (size_t i = 0; i < g->count; i++)
        if (g->all[i].position == frame->position && g->all[i].checksum == frame->checksum)
            return 0;
    if (next.count == GIVEN_UP_MAX)
        memmove(next.all, next.all + 1, --next.count * sizeof next.all[0]);
    next.all[next.count++] = *frame;
    int result = write_file(&next, fs, dir, log);
    if (result == 0)
        *g = next;
    return result;
}

bool wal_given_up_has(const struct wal_given_up *g, uint32_t checksum)
{
    for (size_t i = 0; i < g->count; i++)
        if (g->all[i].checksum == checksum)
            return true;
    return false;
}

void wal_given_up_pack(const struct wal_given_up *g, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, g->count);
    for (size_t i = 0; i < g->count; i++) {
        msgpack_pack_array(&pk, 2);
        msgpack_pack_uint64(&pk, g->all[i].position);
        msgpack_pack_uint32(&pk, g->all[i].checksum);
    }
}
