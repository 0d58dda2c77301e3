/* A bounded pool of log readers: a read that goes on where an earlier one ended gets the reader that stands
 * there. */
#include "query.h"

static size_t choose(const struct reader_pool *pool, uint64_t from)
{
    size_t oldest = 0;
    for (size_t i = 0; i < QUERY_READERS; i++) {
        if (pool->slots[i].reader != NULL && pool->slots[i].next == from)
            return i;
        if (pool->slots[i].used < pool->slots[oldest].used)
            oldest = i;
    }
    return oldest;
}

enum sh_error reader_pool_read(struct reader_pool *pool, struct log_read *read, struct buf *out)
{
    size_t i = choose(pool, read->from);
    if (pool->slots[i].reader == NULL)
        pool->slots[i].reader = log_reader_open(pool->fs, pool->dir, pool->log);
    enum sh_error e = log_reader_read(pool->slots[i].reader, read, out);
    pool->slots[i].next = e == SH_OK ? read->next : 0;
    pool->slots[i].used = ++pool->uses;
    return e;
}

void reader_pool_close(struct reader_pool *pool)
{
    for (size_t i = 0; i < QUERY_READERS; i++) {
        if (pool->slots[i].reader != NULL)
            log_reader_close(pool->slots[i].reader);
        pool->slots[i].reader = NULL;
    }
}
