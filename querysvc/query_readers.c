/* A bounded pool of log readers: a read that goes on where an earlier one ended gets the reader that stands
 * there. Another one gets the reader that was idle for longest, which closes its file and moves, to another
 * log too. */
#include "query.h"

#include <stdio.h>
#include <stdlib.h>

void reader_pool_open(struct reader_pool *pool, const struct vfs *fs, const char *root, size_t slot_count,
                      size_t slot_bytes)
{
    *pool = (struct reader_pool){.fs = fs, .slot_count = slot_count, .slot_bytes = slot_bytes};
    snprintf(pool->root, sizeof pool->root, "%s", root);
    pool->slots = xcalloc(slot_count, sizeof *pool->slots);
}

void reader_pool_dir(const struct reader_pool *pool, struct id16 log, char out[PATH_MAX])
{
    char uuid[ID_TEXT];
    id16_format(log, uuid);
    snprintf(out, PATH_MAX, "%.*s/%s", CONFIG_PATH_MAX, pool->root, uuid);
}

static void open_reader(struct reader_pool *pool, struct reader_slot *slot, struct id16 log)
{
    char dir[PATH_MAX];
    if (slot->reader != NULL)
        log_reader_close(slot->reader);
    reader_pool_dir(pool, log, dir);
    slot->reader = log_reader_open(pool->fs, dir, log);
    slot->log = log;
}

static struct reader_slot *choose(struct reader_pool *pool, struct id16 log, uint64_t from)
{
    struct reader_slot *oldest = &pool->slots[0];
    for (size_t i = 0; i < pool->slot_count; i++) {
        struct reader_slot *slot = &pool->slots[i];
        if (slot->reader != NULL && slot->next == from && id16_equal(slot->log, log))
            return slot;
        if (slot->used < oldest->used)
            oldest = slot;
    }
    if (oldest->reader == NULL || !id16_equal(oldest->log, log))
        open_reader(pool, oldest, log);
    return oldest;
}

static void put_back(struct reader_pool *pool, struct reader_slot *slot, uint64_t next)
{
    slot->next = next;
    slot->used = ++pool->uses;
    log_reader_trim(slot->reader, pool->slot_bytes);
}

enum sh_error reader_pool_read(struct reader_pool *pool, struct id16 log, struct log_read *read,
                               struct buf *out)
{
    struct reader_slot *slot = choose(pool, log, read->from);
    bool stood_there = slot->next == read->from;
    const struct log_read asked = *read;
    const size_t before = out->len;
    enum sh_error e = log_reader_read(slot->reader, read, out);
    if (e == SH_CORRUPT && stood_there) { /* walsvc may have replaced frames by those that others have */
        *read = asked;
        out->len = before;
        open_reader(pool, slot, log);
        e = log_reader_read(slot->reader, read, out);
    }
    put_back(pool, slot, e == SH_OK ? read->next : 0);
    return e;
}

enum sh_error reader_pool_find_time(struct reader_pool *pool, struct log_time *search)
{
    struct reader_slot *slot = choose(pool, search->log, search->from);
    char dir[PATH_MAX];
    reader_pool_dir(pool, search->log, dir);
    search->fs = pool->fs;
    search->dir = dir;
    enum sh_error e = log_time_find(search, slot->reader);
    search->dir = NULL;
    put_back(pool, slot, e == SH_OK ? search->from : 0); /* if it isn't quite there, the index is near */
    return e;
}

size_t reader_pool_bytes(const struct reader_pool *pool)
{
    size_t bytes = 0;
    for (size_t i = 0; i < pool->slot_count; i++)
        bytes += pool->slots[i].reader != NULL ? log_reader_bytes(pool->slots[i].reader) : 0;
    return bytes;
}

void reader_pool_tidy(struct reader_pool *pool)
{
    for (size_t i = 0; i < pool->slot_count; i++)
        if (pool->slots[i].reader != NULL && pool->slots[i].used <= pool->tidied)
            log_reader_let_go(pool->slots[i].reader);
    pool->tidied = pool->uses;
}

void reader_pool_close(struct reader_pool *pool)
{
    for (size_t i = 0; i < pool->slot_count; i++)
        if (pool->slots[i].reader != NULL)
            log_reader_close(pool->slots[i].reader);
    free(pool->slots);
    *pool = (struct reader_pool){0};
}
