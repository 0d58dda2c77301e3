/* shanghai-docs DIR: writes the documents that come from tables in the code into a checkout. A failed write
 * is fatal. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config.h"
#include "exit_code.h"
#include "messages.h"
#include "telemetry.h"

static bool write_document(const char *dir, const char *name, void (*make)(struct buf *out))
{
    char path[4096];
    struct buf text = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    make(&text);
    FILE *f = fopen(path, "w");
    bool good = f != NULL && fwrite(text.data, 1, text.len, f) == text.len;
    if (f != NULL && fclose(f) != 0)
        good = false;
    if (!good)
        fprintf(stderr, "shanghai-docs: %s: %s\n", path, strerror(errno));
    buf_free(&text);
    return good;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: shanghai-docs DIR\n");
        return EXIT_BAD_USAGE;
    }
    bool good = write_document(argv[1], "docs/messages.md", msg_document);
    good = write_document(argv[1], "docs/configuration.md", config_document) && good;
    good = write_document(argv[1], "docs/metrics.md", telemetry_document) && good;
    good = write_document(argv[1], "etc/shanghai.yaml", config_example) && good;
    return good ? EXIT_DONE : EXIT_FAULT;
}
