/* walsvc's core: decides what is appended where, who is answered when. Pure: no file, clock, thread, socket.
 *
 * Events come in as calls with the time; what is to be done comes out through `struct wal_actions`, in order.
 * Requests are lent: their bytes stay valid until the request is answered or its session is dropped.
 *
 * An append is judged (producer, sequence), checked, given its LSNs, its HLC and its place in a segment, and
 * handed out as a frame to write; it is answered when the durable LSN has reached its last entry; one that
 * wants a quorum, or all, when these have it too (wal_levels.h). When it doesn't fit into the segment, a
 * checkpoint frame opens the next one first; while that one is being prepared, appends wait here.
 *
 * An append may have to get a higher HLC than some other, and may carry conditions: then it is refused, not
 * before its turn, when the log has entries of the same streams or keys behind what these were checked
 * against (wal_recent.h).
 *
 * While writes are refused nothing new is taken, but what was accepted is committed and answered, a repeated
 * sequence too. */
#ifndef WAL_CORE_H
#define WAL_CORE_H

#include "group.h"
#include "link.h"
#include "wal_levels.h"
#include "wal_state.h"

/* A frame on its way to the disk. */
struct wal_frame {
    struct wal_frame *next;
    struct frame_header header; /* the writer adds durable end and LSN, the chain and the checksum */
    struct slice body;
    uint64_t session;   /* whose request holds the body when `owned` is NULL */
    uint8_t *owned;     /* holds the body; freed with the frame */
    bool opens_segment; /* a checkpoint: it goes into the next segment, as its first frame */
    uint8_t encoded[FRAME_HEADER_BYTES];
};
void wal_frame_free(struct wal_frame *frame);

/* How far the log is durable. */
struct wal_durable {
    uint64_t end; /* position */
    uint64_t lsn;
    uint64_t commits;  /* groups since the start */
    uint32_t checksum; /* of the last frame below the end */
};

struct wal_actions {
    void (*write)(void *arg, struct wal_frame *frame); /* takes the frame over */
    void (*reply)(void *arg, struct link_token token, const struct msg_append_reply *reply);
    void (*refuse)(void *arg, struct link_token token, const struct msg_error *error);
    void (*watermark)(void *arg, struct link_token token, const struct msg_watermark_reply *reply);
    void (*accepted)(void *arg); /* the loss frame is durable */
    void (*loss_refused)(void *arg, enum sh_error error, const char *text);
    void (*settled)(void *arg, struct link_token token, uint64_t durable_lsn);
    void (*unlend)(void *arg,
                   struct link_token token); /* an append that goes on waiting: for its bytes no more */
    void (*status)(void *arg, struct link_token token, const struct msg_producer_status_reply *reply);
    /* An append that wanted this, and came at now_ns, has got its reply. May be NULL. */
    void (*acknowledged)(void *arg, enum wal_level wanted, int64_t came_ns);
    void *arg;
};

/* Whether appends are taken: `writes` of watermark_reply. */
enum wal_writes { WAL_WRITES_TAKEN, WAL_WRITES_DISK_FULL, WAL_WRITES_READ_ONLY };

/* What the preparer of the next segment says. */
enum wal_next { WAL_NEXT_PREPARING, WAL_NEXT_READY, WAL_NEXT_DISK_FULL };

struct wal_core_options {
    struct id16 log, boot;
    const struct group_set *groups; /* borrowed; with `self`: keys and streams of the others are refused */
    uint64_t segment_size;          /* of the next segments */
    size_t queue_bytes;     /* frames not yet durable, and appends that wait for a segment; one always may */
    uint64_t offset, limit; /* of the active segment: where the next frame goes, its size */
    struct wal_state state; /* taken over */
    struct wal_durable durable;
    struct wal_actions actions;
};

enum { WAL_REASON_MAX = 512 };

struct wal_core;

struct wal_core *wal_core_open(const struct wal_core_options *options);
void wal_core_close(struct wal_core *core);

/* now_real_ns: CLOCK_REALTIME, for the HLC; now_ns: CLOCK_MONOTONIC, from which its timeout counts. */
void wal_core_append(struct wal_core *core, struct link_token token, const struct msg_append *request,
                     int64_t now_real_ns, int64_t now_ns);
/* Whether a producer's request landed; answered when it is durable, if it did. */
void wal_core_producer_status(struct wal_core *core, struct link_token token,
                              const struct msg_producer_status *request);
/* How far others have the log. NULL, or why it is not believed: then nothing has changed. */
const char *wal_core_replicated(struct wal_core *core, uint64_t session, const struct msg_replicated *told);
/* Appends that wait for others are answered with the level that they have reached. */
void wal_core_end_waits(struct wal_core *core);
/* Answered when the durable end is newer, when appends begin or cease to be taken, or when the wait is over.
 * now_ns: CLOCK_MONOTONIC. */
void wal_core_watermark(struct wal_core *core, struct link_token token, const struct msg_watermark *request,
                        int64_t now_ns);
/* What is older than what was told before says nothing: two threads may tell in either order. */
void wal_core_durable(struct wal_core *core, const struct wal_durable *durable);
/* Puts a loss frame into the log: a system frame, which takes no LSN. Its body is copied. One at a time:
 * `accepted` tells that it is durable, `loss_refused` that it will not be (SH_DISK_FULL, SH_READ_ONLY). */
void wal_core_accept_loss(struct wal_core *core, struct slice body, int64_t now_real_ns);
/* Puts a clock frame into the log, if that can be done at once: it takes no LSN, and nobody waits for it. Its
 * body is copied. *hlc: of the frame. SH_READ_ONLY, SH_DISK_FULL, SH_UNAVAILABLE (appends wait, too),
 * SH_TOO_LARGE. */
enum sh_error wal_core_clock(struct wal_core *core, struct slice body, int64_t now_real_ns, uint64_t *hlc);
void wal_core_next_segment(struct wal_core *core, enum wal_next next, int64_t now_real_ns);
/* Appends that wait for a segment and those that come get SH_READ_ONLY with this text, shorter than
 * WAL_REASON_MAX, which is copied. */
void wal_core_refuse_writes(struct wal_core *core, const char *reason);
void wal_core_allow_writes(struct wal_core *core);
/* The own log is open as a copy, or is about to be: until the end no append gets another answer, not even a
 * repeated one, since nothing is known of the producers. */
void wal_core_give_up_writes(struct wal_core *core, const char *reason);
/* Then, how far the log is durable: it may be less than before. */
void wal_core_moved(struct wal_core *core, const struct wal_durable *durable);
/* From the start: appends wait until it is let go. */
void wal_core_hold_back(struct wal_core *core);
void wal_core_let_go(struct wal_core *core, int64_t now_real_ns);
/* ---- entries that were kept aside come back (wal_regain.h), while appends are held back ---- */
enum wal_back {
    WAL_BACK_NEW,   /* it is to be appended */
    WAL_BACK_THERE, /* the log has it */
    WAL_BACK_OTHER, /* neither: nothing is known of it, or it cannot come under this producer any more */
};
enum wal_back wal_core_judge_back(const struct wal_core *core, struct id16 producer, uint32_t epoch,
                                  uint64_t sequence);
/* Appends a data frame, with a new LSN and HLC; the body is copied and fits into a segment. Of the header
 * count, producer, epoch and sequence are taken. False: not now: there is no next segment yet, or no writes
 * are taken. */
bool wal_core_append_back(struct wal_core *core, const struct frame_header *header, struct slice body,
                          int64_t now_real_ns);
/* `settled` answers when every frame that has been handed out is durable; maybe in here. */
void wal_core_when_settled(struct wal_core *core, struct link_token token);
/* The session's requests that wait here are forgotten; frames that were handed out stay. */
void wal_core_drop(struct wal_core *core, uint64_t session);
/* Answers what has waited long enough. */
void wal_core_tick(struct wal_core *core, int64_t now_ns);
/* When wal_core_tick is due; INT64_MAX: never. */
int64_t wal_core_due_ns(const struct wal_core *core);

struct wal_core_stats {
    uint64_t next_lsn, frames;
    uint64_t durable_end, durable_lsn;
    size_t queued_bytes, waiting, stalled, producers;
    size_t waiting_for_others; /* durable here */
    uint64_t position;         /* behind the last frame that was handed out */
    enum wal_next next;
    enum wal_writes writes;
};
struct wal_core_stats wal_core_stats(const struct wal_core *core);

#endif
