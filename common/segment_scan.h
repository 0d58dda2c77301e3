/* Walks the frames of one segment file through a window of at least 256 KiB: the one loop under the log
 * reader, the verifier and recovery. It verifies each frame's checksum; the chain over frames is checked by
 * struct log_chain. */
#ifndef COMMON_SEGMENT_SCAN_H
#define COMMON_SEGMENT_SCAN_H

#include "frame.h"
#include "vfs.h"

enum { SCAN_WINDOW_BYTES = 256 << 10 };

struct segment_scan {
    const struct vfs *fs;
    int fd; /* the caller's */
    uint32_t salt;
    uint64_t offset; /* in the file: of the next frame */
    uint64_t end;    /* in the file: never read beyond; the caller may move it */
    int error;       /* of the last failed read: -errno */
    struct buf window;
    uint64_t window_at;
    struct buf sums; /* once there was a search: checksums of the file's bytes from sums_from to each further
                        4 KiB, 4 bytes each */
    uint64_t sums_from;
};

enum scan_result {
    SCAN_FRAME,  /* a valid frame; offset is behind it */
    SCAN_END,    /* offset == end */
    SCAN_BAD,    /* no valid frame at offset (which stays) that ends at or before `end` */
    SCAN_FAILED, /* a read failed, see error */
};

/* Starts behind the segment header. */
void segment_scan_open(struct segment_scan *scan, const struct vfs *fs, int fd, uint32_t salt, uint64_t end);
void segment_scan_free(struct segment_scan *scan);
/* Forgets what was read, to see what has been written since. */
void segment_scan_forget(struct segment_scan *scan);
/* The frame at offset; bytes (header and body) are borrowed until the next call. */
enum scan_result segment_scan_next(struct segment_scan *scan, struct frame_header *h, struct slice *bytes);
/* Where the last byte that isn't zero lies, from offset (which stays) to `end`: *behind gets the offset
 * behind it, or offset when all are zero. False: a read failed. */
bool segment_scan_extent(struct segment_scan *scan, uint64_t *behind);

/* What the next frame of a log must continue. */
struct log_chain {
    uint64_t next_lsn;
    uint32_t checksum; /* of the frame before */
    uint64_t position; /* of the next frame, over all segments */
};
/* Whether the frame continues the chain, and claims to know no durable end beyond it, nor another chain
 * there; if so, moves on behind it. */
bool log_chain_follow(struct log_chain *chain, const struct frame_header *h);
/* Starts at a segment's first frame. */
struct log_chain log_chain_of(const struct segment_header *segment);

/* A search for valid frames behind a bad one. A client can put bytes into a payload that are a valid frame,
 * so no frame is looked for in the body of another one: not of a valid one, nor of a damaged data frame whose
 * header still continues the chain, nor of one whose length and checksum are confirmed by the frame behind.
 * (In the body of the second only frames count that continue that very header, or that are continued by each
 * other to beyond that body, or to the search's end where the body would end beyond it: then its length is
 * what is damaged.) No client can make such, since it cannot know the checksums of the frames around. Where
 * so much of a header is damaged that nothing tells how long the frame is, its body is searched.
 *
 * A client can also put in a header every 88 bytes that claims a large body. So that such a header costs no
 * walk over what it claims, checksums of the file's bytes are kept, from which that of any part follows. */
struct segment_search {
    struct segment_scan *scan;
    uint64_t end;          /* in the file: where the frames end, if the caller knows; UINT64_MAX: not known */
    uint32_t end_checksum; /* of the last frame there; 0: not known */
    struct log_chain from; /* what the bad frame should have continued, or behind the last one that did */
    struct log_chain chain; /* behind the last header that continued it */
    uint64_t position;      /* of the segment */
    uint64_t body_end;      /* in the file: of the frame with that header */
    uint64_t bad;           /* in the file: where that is */
    uint64_t at;            /* in the file: where to look next */
    uint64_t last;          /* in the file: the last place where a frame is sure to begin */
    bool gap;               /* what follows there doesn't continue the chain */
};
/* The bad frame lies at the scan's offset, and should have continued the chain. */
void segment_search_open(struct segment_search *search, struct segment_scan *scan,
                         const struct log_chain *chain);
/* The next valid frame that begins before `until`, which is not beyond the scan's end: SCAN_FRAME with its
 * header, the scan's offset at its start; SCAN_END: there is none; SCAN_FAILED. Frames that claim to know a
 * durable end beyond their own start are refused, those that say that another chain led to the bad frame, and
 * those whose LSN lies before that of the bad frame, or further behind it than there are bytes between. */
enum scan_result segment_search_next(struct segment_search *search, uint64_t until, struct frame_header *h);

/* ---- files of a log's folder ---- */
/* Opens a segment and reads its header. SH_NOT_FOUND, SH_CORRUPT (damaged, of another log or LSN),
 * SH_VERSION_MISMATCH, SH_INTERNAL (logged). On SH_OK the caller closes *fd; *file_bytes gets the size. */
enum sh_error segment_open(const struct vfs *fs, const char *dir, struct id16 log, uint64_t base_lsn,
                           int flags, int *fd, struct segment_header *header, uint64_t *file_bytes);
enum header_state {
    HEADER_GOOD,
    HEADER_FROM_FRAMES, /* damaged, but frames tell what it said; created_ns is 0 */
    HEADER_UNKNOWN,     /* damaged, and nothing in the file tells its position: that is 0 */
};
/* As segment_open, but a damaged header is no error: see *state. What it said follows from its name, from the
 * checkpoint frame, or from the first frame that was written when all before it was durable (then
 * previous_checksum isn't known and 0). */
enum sh_error segment_open_any(const struct vfs *fs, const char *dir, struct id16 log, uint64_t base_lsn,
                               int flags, int *fd, struct segment_header *header, uint64_t *file_bytes,
                               enum header_state *state);
/* The base LSNs of all segments, ascending (the caller frees *bases). 0 or -errno. */
int segment_list(const struct vfs *fs, const char *dir, uint64_t **bases, size_t *count);

#endif
