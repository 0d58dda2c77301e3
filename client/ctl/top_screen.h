/* The terminal of `top`: the whole screen, redrawn in place; keys and signals while it waits. Put back as it
 * was at the end, also by SIGINT and SIGTERM. */
#ifndef CTL_TOP_SCREEN_H
#define CTL_TOP_SCREEN_H

#include <stdint.h>
#include <stdio.h>

struct top_screen;

/* NULL: standard output and input are no terminal. */
struct top_screen *top_screen_open(void);
void top_screen_close(struct top_screen *screen);

/* What is printed to standard output from now on is gathered, until the next call shows it: lines that are
 * wider than the screen are cut, those below it are left out. Works without a screen (NULL), too: then all of
 * it is printed. */
void top_screen_begin(void);
void top_screen_show(struct top_screen *screen);

enum top_event { TOP_TIME, TOP_QUIT, TOP_REDRAW };
/* Until the time (of CLOCK_MONOTONIC), a key or a signal that ends it, or another size. Without a screen:
 * until the time. */
enum top_event top_screen_wait(struct top_screen *screen, int64_t due_ns);

#endif
