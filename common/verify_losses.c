/* Damage against accepted losses. */
#include "verify_losses.h"

#include <stdlib.h>

enum { HELD_MAX = 65536, LOSSES_MAX = 65536 }; /* some 16 MiB: more than anybody will read */

struct held_damage {
    struct log_damage damage; /* its texts are owned */
    uint64_t position;
};

struct held_loss {
    struct log_loss loss;
    int64_t real_ms;
};

bool verify_losses_hold(struct verify_losses *v, const struct log_damage *damage, uint64_t position)
{
    if (v->held_count == HELD_MAX)
        return false;
    v->held = xrealloc(v->held, (v->held_count + 1) * sizeof *v->held);
    struct held_damage *h = &v->held[v->held_count++];
    *h = (struct held_damage){.damage = *damage, .position = position};
    h->damage.file = xstrdup(damage->file);
    h->damage.what = xstrdup(damage->what);
    return true;
}

void verify_losses_note(struct verify_losses *v, const struct log_loss *loss, int64_t real_ms)
{
    if (v->loss_count == LOSSES_MAX)
        return; /* what it gives up is told as damage */
    v->losses = xrealloc(v->losses, (v->loss_count + 1) * sizeof *v->losses);
    v->losses[v->loss_count++] = (struct held_loss){*loss, real_ms};
}

/* By its bytes, or else by its entries: where a header is gone, positions may not be known. */
static bool is_given_up(const struct held_damage *h, const struct log_loss *loss)
{
    const struct log_damage *d = &h->damage;
    bool bytes =
        h->position >= loss->begin && h->position <= loss->end && d->bytes <= loss->end - h->position;
    bool entries =
        d->next_lsn > d->first_lsn && d->first_lsn >= loss->first_lsn && d->next_lsn - 1 <= loss->last_lsn;
    return h->position != UINT64_MAX && (bytes || entries);
}

void verify_losses_tell(struct verify_losses *v, void (*tell)(void *arg, const struct log_damage *damage),
                        void *arg)
{
    for (size_t i = 0; i < v->held_count; i++) {
        struct held_damage *h = &v->held[i];
        for (size_t k = 0; k < v->loss_count && h->damage.accepted_ms == 0; k++)
            if (is_given_up(h, &v->losses[k].loss))
                h->damage.accepted_ms = v->losses[k].real_ms;
        tell(arg, &h->damage);
        free((char *)(uintptr_t)h->damage.file);
        free((char *)(uintptr_t)h->damage.what);
    }
    free(v->held);
    free(v->losses);
    *v = (struct verify_losses){0};
}
