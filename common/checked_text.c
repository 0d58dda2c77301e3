/* Small text files with a checksum. Nothing here is fatal. */
#include "checked_text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "crc32c.h"
#include "log.h"

static enum sh_error check(struct checked_text *text, size_t len, const char *first_line)
{
    char expected[24], *end = strstr(text->bytes, "\nchecksum ");
    size_t name_len = (size_t)(strrchr(first_line, ' ') + 1 - first_line);
    if (strlen(text->bytes) != len || strncmp(text->bytes, first_line, name_len) != 0 || end == NULL)
        return SH_CORRUPT;
    end++;
    snprintf(expected, sizeof expected, "checksum %08" PRIx32 "\n",
             crc32c(0, text->bytes, (size_t)(end - text->bytes)));
    if (strcmp(end, expected) != 0)
        return SH_CORRUPT;
    *end = 0;
    text->at = text->bytes + strlen(first_line);
    return strncmp(text->bytes, first_line, strlen(first_line)) == 0 ? SH_OK : SH_VERSION_MISMATCH;
}

enum sh_error checked_text_read(struct checked_text *text, const struct vfs *fs, const char *dir,
                                const char *name, const char *first_line)
{
    char path[PATH_MAX];
    vfs_path(path, dir, name);
    int fd = fs->open(fs, path, O_RDONLY, 0);
    if (fd == -ENOENT)
        return SH_NOT_FOUND;
    ssize_t len = fd < 0 ? fd : vfs_read_full(fs, fd, text->bytes, CHECKED_TEXT_MAX, 0);
    if (fd >= 0)
        fs->close(fs, fd);
    if (len < 0) {
        log_error("cannot read a file", log_text("file", path), log_text("error", strerror((int)-len)));
        return SH_INTERNAL;
    }
    text->bytes[len] = 0;
    return check(text, (size_t)len, first_line);
}

bool checked_text_take(struct checked_text *text, const char *name, char **value)
{
    size_t len = strlen(name);
    char *newline = strchr(text->at, '\n');
    if (newline == NULL || strncmp(text->at, name, len) != 0 || text->at[len] != ' ')
        return false;
    *newline = 0;
    *value = text->at + len + 1;
    text->at = newline + 1;
    return true;
}

bool checked_text_at_end(const struct checked_text *text)
{
    return *text->at == 0;
}

int checked_text_write(struct buf *lines, const struct vfs *fs, const char *dir, const char *name)
{
    buf_printf(lines, "checksum %08" PRIx32 "\n", crc32c(0, lines->data, lines->len));
    return vfs_replace_file(fs, dir, name, lines->data, lines->len);
}
