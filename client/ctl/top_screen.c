/* The terminal of `top`. What cannot be set at the terminal is done without; nothing here is fatal. */
#include "top_screen.h"

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "buf.h"
#include "clock.h"

enum { WIDTH = 80, HEIGHT = 24, ESCAPE = 27, CTRL_C = 3, CTRL_D = 4 };

#define ENTER "\033[?1049h\033[?25l" /* the other screen, no cursor */
#define LEAVE "\033[?25h\033[?1049l"
#define HOME  "\033[H"
#define REST  "\033[K" /* of the line is emptied */
#define BELOW "\033[J"
#define PLAIN "\033[0m"

struct top_screen {
    struct termios before;
    int signals;
};

static FILE *real_stdout; /* while what is printed is gathered */
static char *gathered;
static size_t gathered_bytes;

/* glibc's stdout is a variable: whatever prints to it is gathered without knowing. */
void top_screen_begin(void)
{
    FILE *memory = open_memstream(&gathered, &gathered_bytes);
    if (memory == NULL)
        return;
    real_stdout = stdout;
    stdout = memory;
}

static void size_of(unsigned *width, unsigned *height)
{
    struct winsize size;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0;
    *width = known ? size.ws_col : WIDTH;
    *height = known ? size.ws_row : HEIGHT;
}

/* Bytes of the line that fit: escape sequences take no column, a character of UTF-8 one. */
static size_t fitting(const char *line, size_t len, unsigned width)
{
    size_t at = 0;
    while (at < len) {
        if (line[at] == ESCAPE) {
            while (at < len && line[at] != 'm')
                at++;
            at++;
            continue;
        }
        if (width-- == 0)
            return at;
        at++;
        while (at < len && ((unsigned char)line[at] & 0xc0) == 0x80)
            at++;
    }
    return len;
}

static void put(struct buf *out, const char *text, size_t len)
{
    unsigned width, height;
    size_of(&width, &height);
    buf_append_str(out, HOME);
    for (size_t at = 0; at < len && height > 0; height--) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t line = end != NULL ? (size_t)(end - text) - at : len - at;
        buf_append(out, text + at, fitting(text + at, line, width));
        buf_append_str(out, height > 1 ? PLAIN REST "\n" : PLAIN REST);
        at += line + 1;
    }
    buf_append_str(out, BELOW);
}

static void write_all(const void *bytes, size_t len)
{
    const char *at = bytes;
    ssize_t done;
    while (len > 0 && (done = write(STDOUT_FILENO, at, len)) > 0) {
        at += done;
        len -= (size_t)done;
    }
}

void top_screen_show(struct top_screen *screen)
{
    struct buf out = {0};
    if (real_stdout == NULL)
        return;
    fclose(stdout);
    stdout = real_stdout;
    real_stdout = NULL;
    if (screen == NULL) {
        fwrite(gathered, 1, gathered_bytes, stdout);
        fflush(stdout);
    } else {
        put(&out, gathered, gathered_bytes);
        write_all(out.data, out.len);
    }
    buf_free(&out);
    free(gathered);
    gathered = NULL;
}

struct top_screen *top_screen_open(void)
{
    struct termios raw;
    sigset_t set;
    if (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &raw) != 0)
        return NULL;
    struct top_screen *s = xcalloc(1, sizeof *s);
    s->before = raw;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    sigemptyset(&set);
    sigaddset(&set, SIGWINCH);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    write_all(ENTER, strlen(ENTER));
    return s;
}

void top_screen_close(struct top_screen *s)
{
    if (s == NULL)
        return;
    write_all(LEAVE, strlen(LEAVE));
    tcsetattr(STDIN_FILENO, TCSANOW, &s->before);
    if (s->signals >= 0)
        close(s->signals);
    free(s);
}

/* TOP_TIME: nothing that means anything. */
static enum top_event key(void)
{
    char bytes[64];
    ssize_t count = read(STDIN_FILENO, bytes, sizeof bytes);
    if (count == 0)
        return TOP_QUIT; /* nobody types any more */
    for (ssize_t i = 0; i < count; i++)
        if (bytes[i] == 'q' || bytes[i] == 'Q' || bytes[i] == CTRL_C || bytes[i] == CTRL_D)
            return TOP_QUIT;
    return TOP_TIME;
}

static enum top_event signalled(const struct top_screen *s)
{
    struct signalfd_siginfo info;
    enum top_event event = TOP_TIME;
    while (read(s->signals, &info, sizeof info) == (ssize_t)sizeof info)
        if (info.ssi_signo != SIGWINCH)
            return TOP_QUIT;
        else
            event = TOP_REDRAW;
    return event;
}

enum top_event top_screen_wait(struct top_screen *s, int64_t due_ns)
{
    struct pollfd fds[] = {{STDIN_FILENO, POLLIN, 0}, {s != NULL ? s->signals : -1, POLLIN, 0}};
    enum top_event event = TOP_TIME;
    int64_t left_ns;
    do { /* keys are looked at even when it is late already */
        left_ns = due_ns - clock_mono_ns();
        if (poll(fds, s != NULL ? 2 : 0, left_ns > 0 ? (int)(left_ns / NS_PER_MS) + 1 : 0) <= 0)
            continue;
        if (fds[0].revents != 0)
            event = key();
        if (event == TOP_TIME && fds[1].revents != 0)
            event = signalled(s);
    } while (event == TOP_TIME && left_ns > 0);
    return event;
}
