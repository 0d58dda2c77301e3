/* What walsvc tells obssvc of its logs, beside what is counted where it happens. */
#include "telemetry_push.h"
#include "wal_core.h"
#include "wal_service_parts.h"

/* NULL: its threads do not run. */
static struct wal_store *store_of(const struct wal_service *w, struct id16 log)
{
    struct wal_store *store;
    uint64_t durable_end;
    if (!w->is_copy && id16_equal(log, w->own.uuid))
        return w->own.janitor != NULL ? (struct wal_store *)&w->own : NULL;
    if (w->copies == NULL || wal_copies_find(w->copies, log, &store, &durable_end) != SH_OK)
        return NULL;
    return store;
}

static uint32_t gather_log(const struct wal_service *w, const struct wal_log_place *place, msgpack_packer *pk)
{
    char uuid[ID_TEXT];
    const char *const label[] = {uuid};
    const struct wal_store *store = store_of(w, place->log);
    id16_format(place->log, uuid);
    telemetry_gather(pk, TELEMETRY_wal_durable, label, (int64_t)place->durable.lsn);
    if (store == NULL)
        return 1;
    const struct wal_figures *f = &store->upkeep.figures;
    uint64_t first = atomic_load(&f->first_position), end = place->durable.end;
    if (first == WAL_FIGURE_UNKNOWN) /* the janitor has not looked yet */
        return 1;
    telemetry_gather(pk, TELEMETRY_wal_log_bytes, label, end > first ? (int64_t)(end - first) : 0);
    telemetry_gather(pk, TELEMETRY_wal_segments, label, (int64_t)atomic_load(&f->segments));
    telemetry_gather(pk, TELEMETRY_wal_damaged, label, (int64_t)atomic_load(&f->damaged_entries));
    telemetry_gather(pk, TELEMETRY_wal_scrub, label, (int64_t)atomic_load(&f->scrubbed_bytes));
    telemetry_gather(pk, TELEMETRY_wal_scrubs, label, (int64_t)atomic_load(&f->scrubs));
    return 6;
}

uint32_t wal_service_gather(void *arg, msgpack_packer *pk)
{
    const struct wal_service *w = arg;
    const struct vfs *fs = w->dir.fs;
    uint64_t setting = w->service->config->settings.wal_disk_reserve, room;
    uint32_t count = 2;
    telemetry_gather(pk, TELEMETRY_wal_queue, NULL, (int64_t)wal_core_stats(w->core).queued_bytes);
    telemetry_gather(pk, TELEMETRY_wal_disk_reserve, NULL,
                     (int64_t)wal_disk_reserve(fs, w->dir.data, setting));
    if (fs->free_bytes(fs, w->dir.data, &room) == 0) {
        telemetry_gather(pk, TELEMETRY_wal_disk_free, NULL, (int64_t)room);
        count++;
    }
    for (size_t i = 0; i < w->logs.count; i++)
        if (!w->logs.all[i].is_hidden)
            count += gather_log(w, &w->logs.all[i], pk);
    return count;
}

/* The loop's time is that of its turn's begin, in which a group may have become durable since. */
void wal_service_acknowledged(void *arg, enum wal_level wanted, int64_t came_ns)
{
    const struct wal_service *w = arg;
    int64_t now_ns = loop_now_ns(w->service->loop);
    now_ns = w->durable_ns > now_ns ? w->durable_ns : now_ns;
    telemetry_take(TELEMETRY_wal_append, wanted, now_ns > came_ns ? (uint64_t)(now_ns - came_ns) : 0);
}
