/* Counts the rows of a view that nobody has open, for tests of what becomes of them.
 *
 * view_rows DIR: of <data>/view. Prints a line: values, tombstones, values with a ttl, rows that wait to be
 * tidied up, and how many rows and deletions the files hold, as RocksDB estimates them. */
#include <stdio.h>
#include <stdlib.h>

#include "view_store.h"

struct counts {
    unsigned long values, tombstones, expiring, waiting;
};

static void count_row(struct counts *c, struct slice key, struct slice row)
{
    struct view_value value;
    c->waiting += key.data[0] == VIEW_TIDY;
    if (key.data[0] != VIEW_KEY || !view_value_decode(row, &value))
        return;
    c->tombstones += value.deleted;
    c->expiring += !value.deleted && value.expires_ms > 0;
    c->values += !value.deleted && value.expires_ms == 0;
}

int main(int argc, char **argv)
{
    const struct view_store_options options = {.cache_bytes = 1 << 20, .write_buffer_bytes = 1 << 20};
    char error[VIEW_ERROR_MAX];
    struct counts c = {0};
    struct slice key, row;
    struct view_store *store = argc == 2 ? view_store_open(argv[1], &options, error) : NULL;
    if (store == NULL) {
        fprintf(stderr, "%s\n", argc == 2 ? error : "view_rows DIR");
        return EXIT_FAILURE;
    }
    unsigned long long rows = view_store_rows(store);
    struct view_scan *scan = view_scan_open(store, (struct slice){0}, (struct slice){0});
    while (view_scan_next(scan, &key, &row, error))
        count_row(&c, key, row);
    view_scan_close(scan);
    view_store_close(store);
    printf("%lu %lu %lu %lu %llu\n", c.values, c.tombstones, c.expiring, c.waiting, rows);
    return error[0] != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
