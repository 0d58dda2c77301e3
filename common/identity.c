/* <data>/node: which node a data directory belongs to, and the uuid of its log. Nothing here is fatal. Other
 * versions keep the first words and the last line.
 *
 *   shanghai node 1
 *   node n1
 *   log 4be0643f-1d98-573b-97cd-ca98a65347dd
 *   checksum 0a1b2c3d                          CRC-32C of the three lines before */
#include "log_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "crc32c.h"
#include "log.h"

enum { IDENTITY_BYTES_MAX = 512 };
static const char format_name[] = "shanghai node ", first_line[] = "shanghai node 1\n";

/* Takes "name value\n" off the text. The value is cut at the newline. */
static bool take_line(char **text, const char *name, char **value)
{
    size_t len = strlen(name);
    char *newline = strchr(*text, '\n');
    if (newline == NULL || strncmp(*text, name, len) != 0 || (*text)[len] != ' ')
        return false;
    *newline = 0;
    *value = *text + len + 1;
    *text = newline + 1;
    return true;
}

static enum sh_error parse(char *text, size_t len, struct node_identity *out)
{
    char *at = text + sizeof first_line - 1, *node, *log, *end = strstr(text, "\nchecksum ");
    char expected[24];
    if (strlen(text) != len || strncmp(text, format_name, sizeof format_name - 1) != 0 || end == NULL)
        return SH_CORRUPT;
    end++;
    snprintf(expected, sizeof expected, "checksum %08" PRIx32 "\n", crc32c(0, text, (size_t)(end - text)));
    if (strcmp(end, expected) != 0)
        return SH_CORRUPT;
    if (strncmp(text, first_line, sizeof first_line - 1) != 0)
        return SH_VERSION_MISMATCH;
    if (!take_line(&at, "node", &node) || !take_line(&at, "log", &log) || at != end ||
        strlen(node) >= sizeof out->node)
        return SH_CORRUPT;
    snprintf(out->node, sizeof out->node, "%s", node);
    return id16_parse(log, &out->log) && !id16_is_zero(out->log) ? SH_OK : SH_CORRUPT;
}

enum sh_error node_identity_read(const struct vfs *fs, const char *data_dir, struct node_identity *out)
{
    char path[PATH_MAX], text[IDENTITY_BYTES_MAX + 1];
    vfs_path(path, data_dir, "node");
    *out = (struct node_identity){0};
    int fd = fs->open(fs, path, O_RDONLY, 0);
    if (fd == -ENOENT)
        return SH_NOT_FOUND;
    ssize_t len = fd < 0 ? fd : vfs_read_full(fs, fd, text, IDENTITY_BYTES_MAX, 0);
    if (fd >= 0)
        fs->close(fs, fd);
    if (len < 0) {
        log_error("cannot read the node's identity", log_text("file", path),
                  log_text("error", strerror((int)-len)));
        return SH_INTERNAL;
    }
    text[len] = 0;
    return parse(text, (size_t)len, out);
}

int node_identity_write(const struct vfs *fs, const char *data_dir, const struct node_identity *identity)
{
    char log[ID_TEXT];
    struct buf text = {0};
    id16_format(identity->log, log);
    buf_printf(&text, "%snode %s\nlog %s\n", first_line, identity->node, log);
    buf_printf(&text, "checksum %08" PRIx32 "\n", crc32c(0, text.data, text.len));
    int result = vfs_replace_file(fs, data_dir, "node", text.data, text.len);
    buf_free(&text);
    return result;
}
