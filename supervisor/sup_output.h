/* What a service writes to its standard output and error: its lines go on to our standard error unchanged,
 * into a bounded file under run_dir/log, and the last ones stay in memory for the obituary.
 *
 * A longer line than SUP_LINE_MAX is cut into several. */
#ifndef SUP_OUTPUT_H
#define SUP_OUTPUT_H

#include "config.h"

enum {
    SUP_LINE_MAX = 4000,       /* with its newline below PIPE_BUF: written whole or not at all */
    SUP_LINES_KEPT = 20,       /* in memory */
    SUP_LINE_KEPT = 512,       /* bytes of each */
    SUP_LOG_FILE_MAX = 1 << 20 /* then <service>.log becomes <service>.log.1, in place of the one before */
};

struct sup_output {
    char path[CONFIG_PATH_MAX + CONFIG_ID_MAX + 16];
    int file; /* -1 while it cannot be written */
    size_t file_bytes;
    char partial[SUP_LINE_MAX + 1];
    size_t partial_len;
    struct {
        char text[SUP_LINE_KEPT];
        size_t len;
    } kept[SUP_LINES_KEPT];
    uint64_t line_count; /* of this life; line n is kept[n % SUP_LINES_KEPT] */
    uint64_t lost;       /* lines that our standard error did not take */
};

/* dir exists. A file that cannot be opened is logged and done without. */
void sup_output_open(struct sup_output *o, const char *dir, const char *service);
void sup_output_close(struct sup_output *o);
/* A new life begins: the lines kept in memory are the old one's. */
void sup_output_begin(struct sup_output *o);
/* Bytes as they come; sup_output_end also passes on a last line without its newline. */
void sup_output_feed(struct sup_output *o, const char *data, size_t len);
void sup_output_end(struct sup_output *o);
/* The lines kept: how many, and the i-th, the oldest first. */
unsigned sup_output_kept(const struct sup_output *o);
struct slice sup_output_line(const struct sup_output *o, unsigned i);

/* Keeps writes to our standard error from blocking when nobody reads it: lines are lost then, never the
 * supervisor. */
void sup_output_unblock_stderr(void);

#endif
