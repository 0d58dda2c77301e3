/* Whether an append landed whose outcome is unknown. Nothing here is fatal. */
#include "sh_internal.h"

#include <string.h>

static _Thread_local struct sh_append_id last_append; /* sequence 0: none */

void shc_keep_append(enum sh_error error, const struct sh_append_id *id, uint32_t first, uint32_t count)
{
    bool is_unknown = error == SH_TIMEOUT || error == SH_UNAVAILABLE || error == SH_SEQUENCE_EXPIRED ||
                      error == SH_INTERNAL;
    last_append = (struct sh_append_id){.sequence = 0};
    if (!is_unknown)
        return;
    last_append = *id;
    last_append.first = first;
    last_append.count = count;
}

bool sh_last_append(struct sh_append_id *id)
{
    *id = last_append;
    return last_append.sequence > 0;
}

static bool take_status(const struct sh_append_id *id, const struct msg_producer_status_reply *reply,
                        struct sh_producer_status *out)
{
    out->landed = (enum sh_landed)reply->state;
    memcpy(out->log, reply->log.bytes, sizeof out->log);
    if (out->landed != SH_LANDED)
        return true;
    out->first_lsn = reply->lsn + (id->count > 0 ? id->first : 0);
    out->count = id->count > 0 ? id->count : (uint32_t)reply->count;
    return id->count == 0 || (uint64_t)id->first + id->count <= reply->count;
}

enum sh_error sh_producer_status(struct sh_client *c, const struct sh_append_id *id,
                                 struct sh_producer_status *status)
{
    struct shc_call call = {0};
    struct msg_producer_status ask = {.epoch = id->epoch, .sequence = id->sequence};
    struct msg_producer_status_reply reply;
    memset(status, 0, sizeof *status);
    memcpy(ask.producer.bytes, id->producer, sizeof ask.producer.bytes);
    enum sh_error e = shc_ask(c, &call, MSG_producer_status, &ask, MSG_producer_status_reply, &reply);
    if (e == SH_OK && !take_status(id, &reply, status)) {
        shc_detail("the request has fewer entries than that");
        e = SH_INTERNAL;
    }
    shc_call_free(&call);
    return e;
}

const char *sh_landed_name(enum sh_landed landed)
{
    static const char *const names[] = {"landed", "not_landed", "landed_somewhere", "forgotten", "fenced"};
    return (unsigned)landed < sizeof names / sizeof names[0] ? names[landed] : "unknown";
}
