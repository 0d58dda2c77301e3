/* The table of settings (settings.def) and the units of their values. */
#ifndef COMMON_SETTINGS_H
#define COMMON_SETTINGS_H

#include "config.h"

enum setting_kind { SETTING_SIZE, SETTING_DURATION, SETTING_COUNT, SETTING_BOOLEAN, SETTING_LEVEL };

struct setting {
    const char *path; /* "wal.segment_size": a group and a name */
    enum setting_kind kind;
    uint64_t least, most, initial;
    bool reloadable;
    const char *used_by, *prose;
    size_t offset; /* in struct settings */
};

/* All settings in the order of settings.def; *count of them. */
const struct setting *settings_table(size_t *count);
void settings_defaults(struct settings *settings);
uint64_t *setting_value(struct settings *settings, const struct setting *setting);

/* Reads a value and checks its range; on failure appends what is wrong with it, as a clause behind its name.
 */
bool setting_parse(enum setting_kind kind, uint64_t least, uint64_t most, const char *text, uint64_t *value,
                   struct buf *problem);
/* Appends a value as it stands in a file: 64MiB, 250us, true, warn. */
void setting_format(enum setting_kind kind, uint64_t value, struct buf *out);
/* "size", "duration", ... */
const char *setting_kind_name(enum setting_kind kind);

#endif
