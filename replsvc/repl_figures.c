/* What replsvc tells obssvc: how far each follower is behind, counters, and an event when one is for long. */
#include <stdlib.h>
#include <string.h>

#include "repl_shell.h"
#include "telemetry_push.h"

#define ALARM_NS (60 * NS_PER_S)

/* Of a follower that has been told to lag. */
static bool *find(struct repl_lagging *lagging, const char *id)
{
    struct repl_lagging_member *unused = NULL;
    for (size_t i = 0; i < REPL_MEMBERS_MAX; i++) {
        struct repl_lagging_member *m = &lagging->all[i];
        if (m->is_told && strcmp(m->id, id) == 0)
            return &m->is_told;
        unused = !m->is_told && unused == NULL ? m : unused;
    }
    if (unused == NULL)
        return NULL;
    snprintf(unused->id, sizeof unused->id, "%s", id);
    return &unused->is_told;
}

static void tell(const struct repl_lag *lag)
{
    event_warn("replication_lags", "a follower has been without entries of this node's log for long",
               log_text("member", lag->member), log_uint("entries", lag->entries),
               log_uint("bytes", lag->bytes), log_uint("lag_s", (uint64_t)lag->ns / NS_PER_S));
}

/* Those that have left. */
static void forget_others(struct repl_lagging *lagging, const struct repl_lag *lags, size_t count)
{
    for (size_t i = 0; i < REPL_MEMBERS_MAX; i++) {
        bool is_here = false;
        for (size_t l = 0; l < count; l++)
            is_here = is_here || strcmp(lagging->all[i].id, lags[l].member) == 0;
        lagging->all[i].is_told = lagging->all[i].is_told && is_here;
    }
}

void repl_figures_look(struct repl_service *r)
{
    struct repl_lag lags[REPL_MEMBERS_MAX];
    size_t count = repl_core_lags(r->core, clock_mono_ns(), lags);
    forget_others(&r->lagging, lags, count);
    for (size_t i = 0; i < count; i++) {
        bool *is_told = find(&r->lagging, lags[i].member);
        if (is_told == NULL || *is_told == (lags[i].ns >= ALARM_NS) || (*is_told && lags[i].entries > 0))
            continue;
        *is_told = !*is_told;
        if (*is_told)
            tell(&lags[i]);
        else
            event_info("replication_caught_up", "a follower that lagged has all of this node's log",
                       log_text("member", lags[i].member));
    }
}

uint32_t repl_figures_gather(void *arg, msgpack_packer *pk)
{
    const struct repl_service *r = arg;
    const struct repl_counters *c = repl_core_counters(r->core);
    struct repl_lag lags[REPL_MEMBERS_MAX];
    char log[ID_TEXT];
    size_t count = repl_core_lags(r->core, clock_mono_ns(), lags);
    id16_format(r->identity.log, log);
    for (size_t i = 0; i < count; i++) {
        const char *const labels[] = {log, lags[i].member};
        telemetry_gather(pk, TELEMETRY_repl_lag_entries, labels, (int64_t)lags[i].entries);
        telemetry_gather(pk, TELEMETRY_repl_lag_bytes, labels, (int64_t)lags[i].bytes);
        telemetry_gather(pk, TELEMETRY_repl_lag_seconds, labels, lags[i].ns);
    }
    telemetry_gather(pk, TELEMETRY_repl_fetches, NULL, (int64_t)c->fetches);
    telemetry_gather(pk, TELEMETRY_repl_served, NULL, (int64_t)c->served);
    telemetry_gather(pk, TELEMETRY_repl_retries, NULL, (int64_t)c->retries);
    telemetry_gather(pk, TELEMETRY_repl_exhausted, NULL, (int64_t)c->exhausted);
    return (uint32_t)(3 * count + 4);
}
