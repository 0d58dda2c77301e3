/* Damage that the verifier has met, held until the walk over its log ends: a loss frame stands behind what it
 * gives up, so only then is it known which damage was accepted as lost. Nothing here is fatal. */
#ifndef COMMON_VERIFY_LOSSES_H
#define COMMON_VERIFY_LOSSES_H

#include "log_loss.h"
#include "log_verify.h"

struct verify_losses {
    struct held_damage *held;
    size_t held_count;
    struct held_loss *losses;
    size_t loss_count;
};

/* position: in the log, of the damage's first byte; UINT64_MAX: it is not in a segment. False: too many are
 * held, it must be told at once. */
bool verify_losses_hold(struct verify_losses *v, const struct log_damage *damage, uint64_t position);
/* A loss frame was walked over; real_ms: when it was appended. */
void verify_losses_note(struct verify_losses *v, const struct log_loss *loss, int64_t real_ms);
/* Tells each held damage in the order in which they came, with accepted_ms filled in, and forgets all. */
void verify_losses_tell(struct verify_losses *v, void (*tell)(void *arg, const struct log_damage *damage),
                        void *arg);

#endif
