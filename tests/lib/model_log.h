/* A log in memory as walsvc keeps it on disk, in the few respects that its copies depend on: real segments'
 * headers and real frames, a durable end behind which a crash loses everything, trimming, reading for a
 * follower, and a copy that takes only what continues it. Nothing of it is the code under test. */
#ifndef MODEL_LOG_H
#define MODEL_LOG_H

#include "messages.h"
#include "log_reader_copy.h"
#include "repl_core.h"
#include "segment_scan.h"

struct model_frame {
    struct log_chain before, behind;
    uint64_t segment; /* base LSN */
    bool opens;       /* the segment's header stands before it, and belongs to it here */
};

struct model_log {
    struct id16 id;
    struct log_chain begin; /* before the first frame that is left */
    struct model_frame *frames;
    size_t count, cap;
    size_t durable;   /* that many of them are */
    struct buf bytes; /* from begin.position on */
    uint64_t segment; /* that is written to: base LSN */
};

void model_log_open(struct model_log *log, struct id16 id);
void model_log_free(struct model_log *log);

/* Places of both ends. */
struct log_chain model_log_end(const struct model_log *log);
struct log_chain model_log_durable(const struct model_log *log);
struct held_log model_log_tell(const struct model_log *log);
/* The bytes from a place (position) to another. */
struct slice model_log_bytes(const struct model_log *log, uint64_t from, uint64_t to);
/* Index of the frame that begins there; count: none does. */
size_t model_log_find(const struct model_log *log, uint64_t position);

/* ---- the origin ---- */
/* Writes a frame of so many entries, in a new segment (behind a header and a checkpoint) when `roll`. fill:
 * what the body is made of. */
void model_log_append(struct model_log *log, uint32_t body_bytes, uint32_t entries, uint64_t fill, bool roll);
/* The first `count` frames are durable now. */
void model_log_sync(struct model_log *log, size_t count);
void model_log_sync_all(struct model_log *log);
/* What is not durable is lost. */
void model_log_crash(struct model_log *log);
/* Drops durable segments but for the newest `keep`. */
void model_log_trim(struct model_log *log, size_t keep);

/* ---- a source ---- */
/* What is answered to a fetch; the reply's bytes are those of out. */
void model_log_serve(const struct model_log *log, const struct repl_serve *serve, struct buf *out,
                     struct msg_fetch_reply *reply);

/* ---- what is here, for who looks where others part from it ---- */
/* The newest segment that begins at or before the position; false: none is left. */
bool model_log_begins(const struct model_log *log, uint64_t position, struct log_chain *begins);
/* False: what they continue is not here. */
bool model_log_parts(const struct model_log *log, const struct repl_find_fork *parts, struct repl_fork *fork);

/* ---- a copy ---- */
/* As walsvc takes a copy_append: SH_OK (written, not durable), SH_CONFLICT, SH_BAD_REQUEST. *end: where the
 * bytes end. */
enum sh_error model_log_take(struct model_log *log, uint64_t position, struct slice bytes, bool anew,
                             uint64_t *end);
/* With `over`: index of the first frame that is not the same as in the bytes, which begin there; count: none.
 */
size_t model_log_differs(const struct model_log *log, uint64_t position, struct slice bytes);
/* The frames from that index on go. */
void model_log_cut(struct model_log *log, size_t index);

#endif
