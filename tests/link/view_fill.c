/* Makes a view of many keys in a folder, for tests of what they cost; no log has them.
 *
 * view_fill DIR COUNT: of <data>/view; values of 100 bytes, keys in no order. Prints the most memory that it
 * took, files' pages aside, in KiB. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hlc.h"
#include "view_apply.h"

enum { BATCH = 1000, VALUE = 100 };

static long anonymous_kib(void)
{
    char line[128];
    long kib = 0;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        sscanf(line, "Pss_Anon: %ld kB", &kib);
    if (file != NULL)
        fclose(file);
    return kib;
}

static void put(struct view_store *store, uint64_t number, struct buf *key, struct buf *row)
{
    uint8_t value[VALUE];
    char text[40];
    uint64_t mixed = number * UINT64_C(0x9e3779b97f4a7c15);
    for (unsigned i = 0; i < sizeof value; i++)
        value[i] = (uint8_t)(mixed >> i % 57);
    snprintf(text, sizeof text, "key:%016" PRIx64, mixed);
    const struct view_value v = {.version = {.hlc = hlc_of_ms(1700000000000) + number, .lsn = number},
                                 .value = slice_of(value, sizeof value)};
    row->len = 0;
    view_value_encode(&v, row);
    view_key_row(VIEW_KEY, slice_str(text), key);
    view_store_change(store, buf_slice(key), buf_slice(row));
}

int main(int argc, char **argv)
{
    const struct view_store_options options = {.cache_bytes = 16 << 20, .write_buffer_bytes = 8 << 20};
    uint64_t count = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    char error[VIEW_ERROR_MAX] = "view_fill DIR COUNT";
    struct buf key = {0}, row = {0};
    struct view_store *store = count > 0 ? view_store_open(argv[1], &options, error) : NULL;
    long most = 0;
    bool good = store != NULL;
    for (uint64_t i = 1; good && i <= count; i++) {
        put(store, i, &key, &row);
        if (i % BATCH == 0 || i == count)
            good = view_store_write(store, error);
        long now = i % (200 * BATCH) == 0 ? anonymous_kib() : 0;
        most = now > most ? now : most;
    }
    if (store != NULL)
        view_store_close(store);
    buf_free(&key);
    buf_free(&row);
    printf("%ld\n", most);
    if (!good)
        fprintf(stderr, "%s\n", error);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
