/* JSON lines on stderr. Nothing here is fatal: a line that cannot be written is lost. */
#include "log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

static char log_service[32] = "shanghai";
static char log_node[64];
static _Atomic int log_threshold = LOG_INFO;

void log_setup(const char *service, const char *node)
{
    snprintf(log_service, sizeof log_service, "%s", service);
    snprintf(log_node, sizeof log_node, "%s", node);
}

void log_set_level(enum log_level level)
{
    atomic_store(&log_threshold, (int)level);
}

bool log_is_on(enum log_level level)
{
    return (int)level >= atomic_load(&log_threshold);
}

const char *log_level_name(enum log_level level)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    return names[level];
}

struct log_field log_text(const char *name, const char *text)
{
    return (struct log_field){.name = name, .kind = LOG_TEXT, .text = text};
}

struct log_field log_slice(const char *name, struct slice text)
{
    return (struct log_field){.name = name, .kind = LOG_SLICE, .slice = text};
}

struct log_field log_int(const char *name, int64_t number)
{
    return (struct log_field){.name = name, .kind = LOG_NUMBER, .number = number};
}

struct log_field log_uint(const char *name, uint64_t number)
{
    return (struct log_field){.name = name, .kind = LOG_UNSIGNED, .unsigned_number = number};
}

/* The length of the UTF-8 sequence at p, 0 when it is malformed. */
static size_t utf8_length(const uint8_t *p, size_t left)
{
    static const struct {
        uint8_t mask, lead, len;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 1, 0}, {0xe0, 0xc0, 2, 0x80}, {0xf0, 0xe0, 3, 0x800}, {0xf8, 0xf0, 4, 0x10000}};
    for (unsigned f = 0; f < 4; f++) {
        if ((p[0] & forms[f].mask) != forms[f].lead)
            continue;
        if (left < forms[f].len)
            return 0;
        uint32_t rune = p[0] & (uint8_t)~forms[f].mask;
        for (unsigned i = 1; i < forms[f].len; i++) {
            if ((p[i] & 0xc0) != 0x80)
                return 0;
            rune = rune << 6 | (p[i] & 0x3f);
        }
        bool surrogate = rune >= 0xd800 && rune <= 0xdfff;
        return rune < forms[f].least || rune > 0x10ffff || surrogate ? 0 : forms[f].len;
    }
    return 0;
}

bool utf8_valid(struct slice text)
{
    for (size_t at = 0; at < text.len;) {
        size_t len = utf8_length(text.data + at, text.len - at);
        if (len == 0)
            return false;
        at += len;
    }
    return true;
}

static void json_ascii(struct buf *out, uint8_t c)
{
    static const char short_form[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (const char *s = short_form; *s != 0; s += 2) {
        if (c == (uint8_t)*s) {
            buf_append(out, (char[]){'\\', s[1]}, 2);
            return;
        }
    }
    if (c < 0x20 || c == 0x7f)
        buf_printf(out, "\\u%04x", c);
    else
        buf_append(out, &c, 1);
}

void json_string(struct buf *out, struct slice text)
{
    buf_append_str(out, "\"");
    for (size_t at = 0; at < text.len;) {
        size_t len = utf8_length(text.data + at, text.len - at);
        if (len == 0)
            buf_append_str(out, "\\ufffd");
        else if (len == 1)
            json_ascii(out, text.data[at]);
        else
            buf_append(out, text.data + at, len);
        at += len > 0 ? len : 1;
    }
    buf_append_str(out, "\"");
}

static void append_time(struct buf *out)
{
    int64_t now_ns = clock_real_ns();
    time_t seconds = (time_t)(now_ns / NS_PER_S);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    char text[32];
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    buf_printf(out, "{\"time\":\"%s.%06dZ\"", text, (int)(now_ns % NS_PER_S / NS_PER_US));
}

static void append_field(struct buf *out, const struct log_field *f)
{
    buf_append_str(out, ",");
    json_string(out, slice_str(f->name));
    buf_append_str(out, ":");
    if (f->kind == LOG_TEXT)
        json_string(out, slice_str(f->text != NULL ? f->text : ""));
    else if (f->kind == LOG_SLICE)
        json_string(out, f->slice);
    else if (f->kind == LOG_NUMBER)
        buf_printf(out, "%lld", (long long)f->number);
    else
        buf_printf(out, "%llu", (unsigned long long)f->unsigned_number);
}

/* ---------------------------------------------------------------- repeating lines */

enum { KINDS = 256 };

/* Lines that say the same; two that share a place take it from each other, and count anew. */
static struct kind {
    uint32_t hash;
    unsigned written;
    uint64_t suppressed;
    int64_t begun_ns;
} kinds[KINDS];
static pthread_mutex_t kinds_lock = PTHREAD_MUTEX_INITIALIZER;

/* FNV-1a, 32 bits. */
static uint32_t hash_on(uint32_t hash, struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        hash = (hash ^ text.data[i]) * 16777619u;
    return hash;
}

/* Of the texts: numbers differ in lines that say the same. */
static uint32_t hash_of(const char *msg, const struct log_field *f)
{
    uint32_t hash = hash_on(2166136261u, slice_str(msg));
    for (; f->kind != LOG_END; f++)
        if (f->kind == LOG_SLICE || (f->kind == LOG_TEXT && f->text != NULL))
            hash = hash_on(hash, f->kind == LOG_SLICE ? f->slice : slice_str(f->text));
    return hash;
}

/* False: the line is left out. *suppressed: how many were before this one. */
static bool may_write(const char *msg, const struct log_field *fields, uint64_t *suppressed)
{
    uint32_t hash = hash_of(msg, fields);
    int64_t now_ns = clock_mono_ns();
    pthread_mutex_lock(&kinds_lock);
    struct kind *kind = &kinds[hash % KINDS];
    *suppressed = 0;
    if (kind->hash != hash || now_ns - kind->begun_ns >= LOG_REPEAT_NS) {
        *suppressed = kind->hash == hash ? kind->suppressed : 0;
        *kind = (struct kind){.hash = hash, .begun_ns = now_ns};
    }
    bool may = kind->written < LOG_REPEATS;
    kind->written += may;
    kind->suppressed += !may;
    pthread_mutex_unlock(&kinds_lock);
    return may;
}

void log_line(enum log_level level, uint64_t correlation, const char *msg, const struct log_field *fields)
{
    uint64_t suppressed = 0;
    if (!log_is_on(level) || (level > LOG_DEBUG && !may_write(msg, fields, &suppressed)))
        return;
    struct buf out = {0};
    append_time(&out);
    buf_printf(&out, ",\"level\":\"%s\",\"service\":\"%s\",\"node\":", log_level_name(level), log_service);
    json_string(&out, slice_str(log_node));
    buf_printf(&out, ",\"pid\":%d,\"msg\":", (int)getpid());
    json_string(&out, slice_str(msg));
    if (correlation != 0)
        buf_printf(&out, ",\"correlation_id\":\"%016llx\"", (unsigned long long)correlation);
    for (; fields->kind != LOG_END; fields++)
        append_field(&out, fields);
    if (suppressed > 0)
        buf_printf(&out, ",\"suppressed\":%llu", (unsigned long long)suppressed);
    buf_append_str(&out, "}\n");
    ssize_t unused = write(STDERR_FILENO, out.data, out.len);
    (void)unused;
    buf_free(&out);
}
