/* Small text files with a checksum, as `data/node`:
 *
 *   shanghai <what> <version>
 *   <name> <value>               any number of lines; a value has no newline
 *   checksum 0a1b2c3d            CRC-32C of the lines before
 *
 * Other versions keep the first words and the last line. */
#ifndef COMMON_CHECKED_TEXT_H
#define COMMON_CHECKED_TEXT_H

#include "buf.h"
#include "shanghai_error.h"
#include "vfs.h"

enum { CHECKED_TEXT_MAX = 1024 }; /* bytes of a file */

struct checked_text {
    char bytes[CHECKED_TEXT_MAX + 1];
    char *at; /* the line that checked_text_take takes */
};

/* Reads it and compares the checksum. first_line: "shanghai <what> <version>\n".
 * SH_NOT_FOUND: there is no such file. SH_CORRUPT. SH_VERSION_MISMATCH. SH_INTERNAL: a call failed; logged.
 */
enum sh_error checked_text_read(struct checked_text *text, const struct vfs *fs, const char *dir,
                                const char *name, const char *first_line);
/* Takes the next line; false: it has another name. The value lives as long as the text. */
bool checked_text_take(struct checked_text *text, const char *name, char **value);
bool checked_text_at_end(const struct checked_text *text);
/* Writes the first lines and their checksum as vfs_replace_file does; 0 or -errno. */
int checked_text_write(struct buf *lines, const struct vfs *fs, const char *dir, const char *name);

#endif
