/* What the parts of the log reader share: log_reader.c, which goes from segment to segment and past damage,
 * and log_reader_step.c, which stands in one of them. */
#ifndef COMMON_LOG_READER_PARTS_H
#define COMMON_LOG_READER_PARTS_H

#include "log_index.h"
#include "log_reader.h"
#include "segment_scan.h"

struct log_reader {
    const struct vfs *fs;
    char *dir;
    struct id16 log;
    uint64_t *bases; /* segments as last listed, ascending */
    size_t base_count;
    /* the current segment; fd is -1 for none */
    int fd;
    size_t current; /* its place in bases */
    struct segment_header segment;
    enum header_state header; /* damaged: taken from the frames, or UNKNOWN: from the segments beside it */
    bool sealed;              /* end_offset is known */
    uint64_t end_offset;      /* in the file */
    uint32_t end_checksum;    /* that the next segment's header names; 0: not known */
    struct segment_scan scan;
    struct log_chain chain;
    struct log_index index; /* places where it has been */
    bool by_index;    /* it stands where the segment's index file said, and no frame has confirmed that yet */
    uint64_t doubted; /* base LSN of a segment whose index file was wrong; 0 for none */
};

void log_reader_leave(struct log_reader *reader);
/* Lists the folder anew; `current` is kept right. */
enum sh_error log_reader_refresh(struct log_reader *reader);
/* Opens bases[index] and stands before its first frame. SH_NOT_FOUND: it was trimmed. SH_CORRUPT: nothing can
 * be read in it. */
enum sh_error log_reader_enter(struct log_reader *reader, size_t index);
/* Learns the current segment's end from the header of the next one, when there is a next one. When that
 * header is no help, or has just gone, the file's end has to do: who goes on into the next segment will meet
 * the damage there.
 */
enum sh_error log_reader_learn_end(struct log_reader *reader);

/* The place in bases of the last segment that begins at or before the LSN; base_count when there is none. */
size_t log_reader_segment_of(const struct log_reader *reader, uint64_t lsn);
/* Goes on to the best place at or before the LSN in the current segment, as far as where it has been and the
 * segment's index file tell. */
void log_reader_skip_to(struct log_reader *reader, uint64_t lsn);

enum log_step { STEP_FRAME, STEP_DURABLE_END, STEP_SEGMENT_END, STEP_BAD, STEP_GONE, STEP_FAILED };

/* One frame on. What looks bad is looked at again when the writer may have rolled on meanwhile. STEP_GONE:
 * the segment was trimmed, and cannot be told from damage any more. */
enum log_step log_reader_step(struct log_reader *reader, uint64_t durable_end, struct frame_header *h,
                              struct slice *bytes, enum sh_error *error);

#endif
