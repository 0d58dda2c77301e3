/* What the log must hold, kept beside it: every append in order, what was acknowledged, what was ever
 * durable.
 *
 * Appends are judged here by rules of their own (model_settle), in the order in which they were asked for.
 * What a broken promise leads to is model_fail: it names the seed and ends the process. */
#ifndef TESTS_SIM_MODEL_H
#define TESTS_SIM_MODEL_H

#include "wal_rig.h"

enum { MODEL_PRODUCERS = 7 /* 0: none */, MODEL_ANSWERS_KEPT = 32 };

/* A frame that was, or would be, written. */
struct model_frame {
    uint64_t lsn, sequence, producer;
    uint32_t count, epoch;
    size_t body_at, body_len;
    /* where it was last seen; base 0: nowhere yet */
    uint64_t base, offset;
    bool is_damaged;
    bool is_unsure; /* a repair of it was cut short: each loss of power may bring it back, or the damage */
    bool is_maybe;  /* the model cannot tell whether it was taken or refused; `is_gone`: it was not taken */
    bool is_gone;
};

/* An append of this life, not settled yet. */
struct model_request {
    uint64_t number, producer, sequence;
    uint32_t epoch, count;
    size_t body_at, body_len;
};

struct model_producer {
    uint32_t epoch;
    uint64_t last;
};

/* A durable end and the checksum of the frame before it. */
struct model_place {
    uint64_t end;
    uint32_t checksum;
};

struct model {
    struct buf bodies;
    struct buf
        frames; /* struct model_frame: the first `durable` of them are acknowledged or were recovered */
    struct buf requests; /* struct model_request, those from `settled` on aren't */
    struct buf places;   /* struct model_place: of everything that was ever durable, ascending */
    size_t durable, settled;
    uint64_t next_lsn, durable_end, most_body;
    bool may_be_full, is_damaged;
    bool forgets; /* damage in the newest segment may have cost what recovery knew of producers */
    uint64_t trimmed, may_trim; /* the first LSN left is at least the one and at most the other; 0: 1 */
    struct model_producer producers[MODEL_PRODUCERS];
};

_Noreturn __attribute__((format(printf, 1, 2))) void model_fail(const char *format, ...);
#define model_check(condition, ...) ((condition) ? (void)0 : model_fail(__VA_ARGS__))

void model_free(struct model *model);
/* Keeps the body and the request, which has just been handed to the rig under that number. */
void model_append(struct model *model, const struct model_request *request, struct slice body);
/* Checks the answers that have come, in order. */
void model_settle(struct model *model, const struct wal_rig *rig);
/* The durable end has moved: checks that it didn't move back. */
void model_durable(struct model *model, const struct wal_rig *rig);
/* No further answer will come: whatever wasn't answered may have landed or not. */
void model_crashed(struct model *model, const struct wal_rig *rig);
/* Compares the log with the model, frame by frame; `recovered`: the first look after a crash, from which on
 * everything there counts. */
void model_compare(struct model *model, const struct wal_rig *rig, bool recovered);
/* The frame that holds the LSN, NULL when there is none. */
struct model_frame *model_find(const struct model *model, uint64_t lsn);
struct model_frame *model_frame_at(const struct model *model, size_t index);
size_t model_frame_count(const struct model *model);
/* Whether a frame as read is that of the model. */
void model_check_frame(const struct model *model, const struct model_frame *frame,
                       const struct frame_header *h, struct slice body);

#endif
