/* data/member: what the core saves, between two starts (docs/cluster-protocol.md, "data/member"). A crash
 * leaves the old file or the new one. */
#ifndef MEMBER_FILE_H
#define MEMBER_FILE_H

#include "buf.h"
#include "exit_code.h"
#include "loop.h"
#include "vfs.h"

enum { MEMBER_FILE_BODY_MAX = 16 << 20 };

/* *body: what was saved; empty when there is no file, or when it was damaged: then it lies in the quarantine
 * now. EXIT_CONFIG: it is of a newer format, and left as it is; EXIT_FAULT: the disk fails. Logged. */
enum service_exit member_file_read(const struct vfs *fs, const char *data_dir, struct buf *body);
/* Moves the file to data/quarantine/member-<time>. EXIT_DONE, or EXIT_FAULT when that cannot be done. Logged,
 * with why. */
enum service_exit member_file_quarantine(const struct vfs *fs, const char *data_dir, const char *why);

struct member_file;

/* Starts a thread that writes, so that no slow disk delays the loop. on_written: in the loop's turn, once for
 * each member_file_write; full: nothing is written, the disk is full. A disk that fails ends the process with
 * EXIT_FAULT. fs and data_dir are borrowed. */
struct member_file *member_file_open(const struct vfs *fs, const char *data_dir, struct loop *loop,
                                     void (*on_written)(void *arg, bool full), void *arg);
bool member_file_is_idle(const struct member_file *file);
/* Only when it is idle. Takes the body over. */
void member_file_write(struct member_file *file, struct buf *body);
/* Waits for the write that is on its way. */
void member_file_close(struct member_file *file);

#endif
