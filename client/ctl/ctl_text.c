/* Text for people: units, columns, colours, and the end of output. Nothing is fatal. */
#include "ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "local_time.h"
#include "log.h"

const char *ctl_bytes(uint64_t bytes, char out[CTL_TEXT_MAX])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    unsigned unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    snprintf(out, CTL_TEXT_MAX, unit > 0 && value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return out;
}

const char *ctl_grouped(uint64_t number, char out[CTL_TEXT_MAX])
{
    char digits[CTL_TEXT_MAX];
    int len = snprintf(digits, sizeof digits, "%" PRIu64, number), at = 0;
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = 0;
    return out;
}

const char *ctl_rate(double per_s, char out[CTL_TEXT_MAX])
{
    if (per_s >= 1e6)
        snprintf(out, CTL_TEXT_MAX, "%.2f M", per_s / 1e6);
    else if (per_s >= 1e4)
        snprintf(out, CTL_TEXT_MAX, "%.1f k", per_s / 1e3);
    else
        snprintf(out, CTL_TEXT_MAX, per_s >= 100 ? "%.0f" : "%.1f", per_s);
    return out;
}

const char *ctl_duration(int64_t ns, char out[CTL_TEXT_MAX])
{
    int64_t s = ns / NS_PER_S;
    if (ns < NS_PER_MS)
        snprintf(out, CTL_TEXT_MAX, "%" PRId64 " us", ns / NS_PER_US);
    else if (s < 1)
        snprintf(out, CTL_TEXT_MAX, "%.3g ms", (double)ns / NS_PER_MS);
    else if (s < 60)
        snprintf(out, CTL_TEXT_MAX, "%.3g s", (double)ns / (double)NS_PER_S);
    else if (s < 3600)
        snprintf(out, CTL_TEXT_MAX, "%" PRId64 "m %02" PRId64 "s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out, CTL_TEXT_MAX, "%" PRId64 "h %02" PRId64 "m", s / 3600, s / 60 % 60);
    else
        snprintf(out, CTL_TEXT_MAX, "%" PRId64 "d %02" PRId64 "h", s / 86400, s / 3600 % 24);
    return out;
}

const char *ctl_age(int64_t ms, char out[CTL_TEXT_MAX])
{
    int64_t s = ms / MS_PER_S;
    if (ms < 0)
        snprintf(out, CTL_TEXT_MAX, "-");
    else if (s < 10)
        snprintf(out, CTL_TEXT_MAX, "%" PRId64 ".%" PRId64 "s", s, ms / 100 % 10);
    else if (s < 60)
        snprintf(out, CTL_TEXT_MAX, "%" PRId64 "s", s);
    else if (s < 3600)
        snprintf(out, CTL_TEXT_MAX, "%" PRId64 "m", s / 60);
    else if (s < 86400)
        snprintf(out, CTL_TEXT_MAX, "%" PRId64 "h", s / 3600);
    else
        snprintf(out, CTL_TEXT_MAX, "%" PRId64 "d", s / 86400);
    return out;
}

const char *ctl_time(int64_t real_ns, char out[CTL_TEXT_MAX])
{
    _Static_assert((int)LOCAL_TIME <= (int)CTL_TEXT_MAX, "a time fits");
    return local_time(real_ns, out);
}

const char *ctl_style(const struct ctl *ctl, const char *sequence)
{
    return ctl->colour && ctl->format == CTL_TEXT ? sequence : "";
}

/* ---------------------------------------------------------------- columns */

void ctl_table_head(struct ctl_table *table, size_t columns, const char *const *heads)
{
    *table = (struct ctl_table){.columns = columns};
    for (size_t i = 0; i < columns; i++)
        ctl_table_cell(table, "%s", heads[i]);
}

void ctl_table_cell(struct ctl_table *table, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    buf_append(&table->cells, text, strlen(text) + 1);
    table->count++;
}

/* Characters that a terminal shows: bytes that don't continue a UTF-8 sequence, and belong to no style. */
static int width_of(const char *text)
{
    int width = 0;
    for (; *text != 0; text++) {
        const char *end = *text == '\033' ? strchr(text, 'm') : NULL;
        if (end != NULL)
            text = end;
        else
            width += ((uint8_t)*text & 0xc0) != 0x80;
    }
    return width;
}

/* *gap: blanks that are due before the next text, so that no line ends in blanks. */
static void print_cell(const char *text, int width, bool right, int *gap)
{
    int pad = width - width_of(text);
    *gap += right ? pad : 0;
    if (text[0] != 0) {
        printf("%*s%s", *gap, "", text);
        *gap = 0;
    }
    *gap += (right ? 0 : pad) + 2;
}

void ctl_table_print(const struct ctl *ctl, struct ctl_table *table)
{
    enum { COLUMNS_MAX = 16 };
    int widths[COLUMNS_MAX] = {0};
    bool right[COLUMNS_MAX] = {false};
    size_t columns = table->columns < COLUMNS_MAX ? table->columns : COLUMNS_MAX;
    const char *text = (const char *)table->cells.data;
    for (size_t i = 0; i < table->count; i++, text += strlen(text) + 1) {
        size_t column = i % table->columns;
        bool arrow = i < table->columns && text[0] == '>';
        if (column >= columns)
            continue;
        right[column] = right[column] || arrow;
        int width = width_of(text) - (arrow ? 1 : 0);
        widths[column] = width > widths[column] ? width : widths[column];
    }
    text = (const char *)table->cells.data;
    int gap = 0;
    for (size_t i = 0; i < table->count; i++, text += strlen(text) + 1) {
        size_t column = i % table->columns;
        bool head = i < table->columns;
        if (head && column == 0)
            fputs(ctl_style(ctl, CTL_BOLD), stdout);
        if (column < columns)
            print_cell(text + (head && right[column]), widths[column], right[column], &gap);
        if (column + 1 < table->columns)
            continue;
        printf("%s\n", head ? ctl_style(ctl, CTL_PLAIN) : "");
        gap = 0;
    }
    buf_free(&table->cells);
}

void ctl_line(const struct ctl *ctl, const char *name, const char *format, ...)
{
    va_list args;
    printf("%s%s:%s%*s", ctl_style(ctl, CTL_BOLD), name, ctl_style(ctl, CTL_PLAIN),
           strlen(name) < 14 ? 15 - (int)strlen(name) : 1, "");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

void ctl_safe(struct buf *out, struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        size_t len = 1;
        while (len < 4 && i + len < text.len && (text.data[i + len] & 0xc0) == 0x80)
            len++;
        uint8_t c = text.data[i];
        bool control = c < 0x20 || c == 0x7f || (c == 0xc2 && len == 2 && text.data[i + 1] < 0xa0);
        if (!control && utf8_valid(slice_of(text.data + i, len))) {
            buf_append(out, text.data + i, len);
            i += len - 1;
        } else {
            buf_printf(out, "\\x%02x", c);
        }
    }
}

/* ---------------------------------------------------------------- the end */

static int print_error; /* errno of the first failed write that was noticed */

bool ctl_can_print(void)
{
    if (print_error == 0 && ferror_unlocked(stdout))
        print_error = errno;
    return print_error == 0;
}

bool ctl_is_read(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    if (print_error == 0 && poll(&out, 1, 0) > 0 && (out.revents & POLLERR) != 0)
        print_error = EPIPE;
    return print_error == 0;
}

int ctl_finish(int code)
{
    if (fflush(stdout) == 0 && ctl_can_print())
        return code;
    if (print_error == 0)
        print_error = errno;
    if (print_error != EPIPE) /* `| head` is no news */
        fprintf(stderr, "shanghaictl: cannot write to standard output: %s\n", strerror(print_error));
    return code != CTL_DONE ? code : CTL_FAILED;
}

int ctl_exit_of(enum sh_error error)
{
    switch (error) {
    case SH_OK:
        return CTL_DONE;
    case SH_NOT_FOUND:
    case SH_TRIMMED:
    case SH_CORRUPT:
        return CTL_NO;
    default:
        return CTL_FAILED;
    }
}

int ctl_fail_more(const struct ctl *ctl, const char *what, enum sh_error error, const char *text,
                  const char *fields)
{
    fflush(stdout);
    if (ctl->format == CTL_JSON) {
        struct buf line = {0};
        buf_append_str(&line, "{\"error\":");
        json_string(&line, slice_str(sh_error_name(error)));
        buf_append_str(&line, ",\"what\":");
        json_string(&line, slice_str(what));
        buf_append_str(&line, ",\"text\":");
        json_string(&line, slice_str(text));
        buf_append_str(&line, fields);
        buf_append_str(&line, "}\n");
        fwrite(line.data, 1, line.len, stderr);
        buf_free(&line);
    } else {
        fprintf(stderr, "shanghaictl: %s: %s: %s\n", what, sh_error_name(error), text);
    }
    return ctl_exit_of(error);
}

int ctl_fail_text(const struct ctl *ctl, const char *what, enum sh_error error, const char *text)
{
    return ctl_fail_more(ctl, what, error, text, "");
}

void ctl_error_text(const struct ctl *ctl, enum sh_error error, const char *detail, struct buf *out)
{
    bool reads = ctl->command != NULL && ctl->command->reads;
    const char *usual = sh_error_text(error), *consequence = strchr(usual, ';');
    size_t first = consequence != NULL ? (size_t)(consequence - usual) : strlen(usual);
    if (detail != NULL && detail[0] != 0)
        buf_append_str(out, detail);
    else
        buf_append(out, usual, first);
    if (consequence != NULL && !(reads && (error == SH_TIMEOUT || error == SH_UNAVAILABLE)))
        buf_append_str(out, consequence);
}

int ctl_fail(const struct ctl *ctl, const char *what, enum sh_error error, const char *detail)
{
    struct buf text = {0};
    ctl_error_text(ctl, error, detail, &text);
    int code = ctl_fail_text(ctl, what, error, buf_cstr(&text));
    buf_free(&text);
    return code;
}
