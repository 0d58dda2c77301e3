/* A log's files and threads, put together. What is fatal stands in the parts. */
#include "wal_store.h"

#include "wal_fatal.h"

static void on_trimmed(void *arg, uint64_t first_lsn, uint64_t position)
{
    struct wal_store *store = arg;
    (void)position;
    store->options.on_trimmed(store->options.arg, store, first_lsn);
}

static void on_drop(void *arg)
{
    struct wal_store *store = arg;
    if (store->options.on_drop != NULL)
        store->options.on_drop(store->options.arg, store);
}

static void on_index_lost(void *arg)
{
    struct wal_store *store = arg;
    store->options.on_index_lost(store->options.arg, store);
}

static void on_fatal(void *arg, const char *what, int result)
{
    const struct wal_store *store = arg;
    wal_fatal(what, store->path, result);
}

enum service_exit wal_store_open(struct wal_store *store, const struct wal_store_options *options)
{
    store->options = *options;
    struct wal_upkeep_options upkeep = {
        .fs = store->dir->fs,
        .dir = store->path,
        .log = store->uuid,
        .settings = options->settings,
        .stop = &store->stop_janitor,
        .damage = store->damage,
        .on_index_lost = on_index_lost,
        .on_trimmed = on_trimmed,
        .on_drop = on_drop,
        .horizon_ns = options->horizon_ns,
        .tells_horizon = options->tells_horizon,
        .on_fatal = on_fatal,
        .arg = store,
    };
    struct wal_upkeep_time now = {clock_real_ns(), clock_mono_ns()};
    return wal_upkeep_open(&store->upkeep, &upkeep, now);
}

static void on_next(void *arg, enum wal_next next)
{
    struct wal_store *store = arg;
    store->on_next(store->next_arg, next);
    wal_janitor_next(store->janitor, next);
}

static void on_damage(void *arg, uint64_t base_lsn)
{
    struct wal_store *store = arg;
    wal_janitor_look(store->janitor, base_lsn);
}

void wal_store_start(struct wal_store *store, void (*next)(void *arg, enum wal_next next), void *arg)
{
    store->on_next = next;
    store->next_arg = arg;
    struct wal_janitor_options janitor = {
        .upkeep = &store->upkeep,
        .stop = &store->stop_janitor,
        .on_answer = store->options.on_answer,
        .arg = store->options.arg,
    };
    store->janitor = wal_janitor_start(&janitor); /* first: the preparer tells it what it does */
    struct wal_prepare_options prepare = {
        .fs = store->dir->fs,
        .dir = store->path,
        .log = store->uuid,
        .segment_size = store->options.segment_size,
        .disk_reserve = store->options.settings.disk_reserve,
        .retry_ns = NS_PER_S,
        .index_delay_ns = NS_PER_S,
        .on_next = on_next,
        .on_damage = on_damage,
        .arg = store,
    };
    store->prepare = wal_prepare_start(&prepare);
}

void wal_store_set(struct wal_store *store, const struct wal_upkeep_settings *settings)
{
    wal_prepare_set_reserve(store->prepare, settings->disk_reserve);
    wal_janitor_set(store->janitor, settings);
}

void wal_store_stop(struct wal_store *store)
{
    wal_prepare_stop(store->prepare);
    wal_janitor_stop(store->janitor);
    store->prepare = NULL;
    store->janitor = NULL;
}

void wal_store_close(struct wal_store *store)
{
    wal_upkeep_close(&store->upkeep);
    wal_log_close(&store->log);
}
