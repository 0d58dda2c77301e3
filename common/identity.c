/* <data>/node: which node a data directory belongs to, and the uuid of its log. Nothing here is fatal.
 *
 *   shanghai node 1
 *   node n1
 *   log 4be0643f-1d98-573b-97cd-ca98a65347dd
 *   checksum 0a1b2c3d                          see checked_text.h */
#include "log_reader.h"

#include <stdio.h>
#include <string.h>

#include "checked_text.h"

static const char first_line[] = "shanghai node 1\n";

enum sh_error node_identity_read(const struct vfs *fs, const char *data_dir, struct node_identity *out)
{
    struct checked_text text;
    char *node, *log;
    *out = (struct node_identity){0};
    enum sh_error error = checked_text_read(&text, fs, data_dir, "node", first_line);
    if (error != SH_OK)
        return error;
    if (!checked_text_take(&text, "node", &node) || !checked_text_take(&text, "log", &log) ||
        !checked_text_at_end(&text) || strlen(node) >= sizeof out->node)
        return SH_CORRUPT;
    snprintf(out->node, sizeof out->node, "%s", node);
    return id16_parse(log, &out->log) && !id16_is_zero(out->log) ? SH_OK : SH_CORRUPT;
}

int node_identity_write(const struct vfs *fs, const char *data_dir, const struct node_identity *identity)
{
    char log[ID_TEXT];
    struct buf lines = {0};
    id16_format(identity->log, log);
    buf_printf(&lines, "%snode %s\nlog %s\n", first_line, identity->node, log);
    int result = checked_text_write(&lines, fs, data_dir, "node");
    buf_free(&lines);
    return result;
}
