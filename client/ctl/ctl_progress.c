/* A bar on stderr when that is a terminal, drawn at most ten times a second. */
#include "ctl.h"

#include <string.h>
#include <unistd.h>

enum { BAR = 24, DRAW_MS = 100 };

void ctl_progress_start(struct ctl_progress *p, const char *what)
{
    *p = (struct ctl_progress){.shown = isatty(STDERR_FILENO), .what = what, .started_ns = clock_mono_ns()};
}

void ctl_progress_show(struct ctl_progress *p, uint64_t done, uint64_t total, const char *note)
{
    int64_t now_ns = clock_mono_ns();
    if (!p->shown || now_ns - p->drawn_ns < (int64_t)DRAW_MS * NS_PER_MS)
        return;
    p->drawn_ns = now_ns;
    fprintf(stderr, "\r\033[K%s", p->what);
    if (total > 0) {
        double share = done < total ? (double)done / (double)total : 1;
        int full = (int)(share * BAR);
        char bar[BAR + 1];
        memset(bar, '.', BAR);
        memset(bar, '#', (size_t)full);
        bar[BAR] = 0;
        fprintf(stderr, " [%s] %3.0f %%", bar, share * 100);
    }
    if (note != NULL)
        fprintf(stderr, "  %s", note);
    fflush(stderr);
}

void ctl_progress_end(struct ctl_progress *p)
{
    if (p->shown && p->drawn_ns > 0)
        fputs("\r\033[K", stderr);
    p->shown = false;
}
