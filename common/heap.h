/* What malloc does with memory that messages come and go in. */
#ifndef COMMON_HEAP_H
#define COMMON_HEAP_H

/* For a program whose large messages are allocated by one thread and freed by another: two arenas for all
 * threads, and up to 16 MiB that are free at the end of each are kept. As it comes, glibc gives such memory
 * back to the kernel with nearly each message and takes it anew, page by page, in as many arenas as there are
 * threads. With one arena only, threads wait for each other. Call it at the start, before there are threads.
 */
void heap_keep_messages(void);

#endif
