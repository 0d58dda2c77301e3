/* Settings: the table made from settings.def, and values with units. Nothing here is fatal. */
#include "settings.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "config_doc.h"
#include "log.h"

#define KIB(n)     (UINT64_C(n) << 10)
#define MIB(n)     (UINT64_C(n) << 20)
#define GIB(n)     (UINT64_C(n) << 30)
#define US(n)      (UINT64_C(n) * 1000)
#define MS(n)      (UINT64_C(n) * 1000000)
#define SECONDS(n) (UINT64_C(n) * 1000000000)
#define RELOADABLE true
#define FIXED      false

static const struct setting table[] = {
#define SETTING(name, path, kind, least, most, initial, reloadable, used_by, prose)                          \
    {path, SETTING_##kind, least, most, initial, reloadable, used_by, prose, offsetof(struct settings, name)},
#include "settings.def"
#undef SETTING
};

const struct setting *settings_table(size_t *count)
{
    *count = sizeof table / sizeof table[0];
    return table;
}

uint64_t *setting_value(struct settings *settings, const struct setting *setting)
{
    return (uint64_t *)((char *)settings + setting->offset);
}

void settings_defaults(struct settings *settings)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        *setting_value(settings, &table[i]) = table[i].initial;
}

const char *setting_kind_name(enum setting_kind kind)
{
    static const char *const names[] = {"size", "duration", "count", "boolean", "level"};
    return names[kind];
}

/* ------------------------------------------------------------ units */

struct unit {
    const char *name;
    uint64_t factor;
};

/* The largest last: formatting takes the last one that divides the value. */
static const struct unit sizes[] = {
    {"", 1}, {"KiB", KIB(1)}, {"MiB", MIB(1)}, {"GiB", GIB(1)}, {"TiB", GIB(1) << 10}};
static const struct unit durations[] = {
    {"ns", 1},          {"us", US(1)},        {"ms", MS(1)},        {"s", SECONDS(1)},
    {"m", SECONDS(60)}, {"h", SECONDS(3600)}, {"d", SECONDS(86400)}};
static const struct unit counts[] = {{"", 1}};

static const struct unit *units_of(enum setting_kind kind, size_t *count)
{
    *count = kind == SETTING_SIZE       ? sizeof sizes / sizeof sizes[0]
             : kind == SETTING_DURATION ? sizeof durations / sizeof durations[0]
                                        : 1;
    return kind == SETTING_SIZE ? sizes : kind == SETTING_DURATION ? durations : counts;
}

/* The word that stands for a value; NULL behind the last. */
static const char *word_of(enum setting_kind kind, uint64_t value)
{
    if (kind == SETTING_BOOLEAN)
        return value == 0 ? "false" : value == 1 ? "true" : NULL;
    return value <= LOG_ERROR ? log_level_name((enum log_level)value) : NULL;
}

static bool is_word_kind(enum setting_kind kind)
{
    return kind == SETTING_BOOLEAN || kind == SETTING_LEVEL;
}

static bool parse_word(enum setting_kind kind, const char *text, uint64_t *value, struct buf *problem)
{
    const char *words[8];
    size_t count = 0;
    for (; word_of(kind, count) != NULL; count++) {
        words[count] = word_of(kind, count);
        if (strcmp(text, words[count]) == 0) {
            *value = count;
            return true;
        }
    }
    struct buf hint = {0};
    buf_append_str(problem, "must be ");
    for (size_t i = 0; i < count; i++)
        buf_printf(problem, "%s%s", i == 0 ? "" : i + 1 == count ? " or " : ", ", words[i]);
    buf_printf(problem, ", not `%s`%s", doc_show(text).text, doc_hint(&hint, text, words, count));
    buf_free(&hint);
    return false;
}

static void unknown_unit(enum setting_kind kind, const char *text, const char *unit, struct buf *problem)
{
    size_t count;
    const struct unit *units = units_of(kind, &count);
    const char *names[8];
    struct buf hint = {0};
    for (size_t i = 0; i < count; i++)
        names[i] = units[i].name;
    doc_hint(&hint, unit, names, count);
    if (kind == SETTING_COUNT)
        buf_printf(problem, "must be a plain number, not `%s`", doc_show(text).text);
    else if (*unit == 0)
        buf_printf(problem, "needs a unit (ns, us, ms, s, m, h, d): `%ss`?", doc_show(text).text);
    else
        buf_printf(problem, "has an unknown unit in `%s`; units are %s%s", doc_show(text).text,
                   kind == SETTING_SIZE ? "KiB, MiB, GiB, TiB, or none for bytes" : "ns, us, ms, s, m, h, d",
                   buf_cstr(&hint));
    buf_free(&hint);
}

/* *beyond: the number is larger than any range. */
static bool parse_number(enum setting_kind kind, const char *text, uint64_t *value, bool *beyond,
                         struct buf *problem)
{
    size_t digits = strspn(text, "0123456789"), count;
    const struct unit *units = units_of(kind, &count), *unit = NULL;
    if (digits == 0) {
        buf_printf(problem, "must be a %s such as %s, not `%s`", setting_kind_name(kind),
                   kind == SETTING_SIZE       ? "64MiB"
                   : kind == SETTING_DURATION ? "5s or 250us"
                                              : "16",
                   doc_show(text).text);
        return false;
    }
    errno = 0;
    uint64_t number = strtoull(text, NULL, 10);
    for (size_t i = 0; i < count && unit == NULL; i++)
        if (strcmp(text + digits, units[i].name) == 0)
            unit = &units[i];
    if (unit == NULL && number == 0 && text[digits] == 0)
        unit = units;
    if (unit == NULL) {
        unknown_unit(kind, text, text + digits, problem);
        return false;
    }
    if (errno != 0 || __builtin_mul_overflow(number, unit->factor, value))
        *beyond = true;
    return true;
}

static void out_of_range(enum setting_kind kind, uint64_t least, uint64_t most, const char *text,
                         struct buf *problem)
{
    buf_append_str(problem, "must be between ");
    setting_format(kind, least, problem);
    buf_append_str(problem, " and ");
    setting_format(kind, most, problem);
    buf_printf(problem, ", not `%s`", doc_show(text).text);
}

bool setting_parse(enum setting_kind kind, uint64_t least, uint64_t most, const char *text, uint64_t *value,
                   struct buf *problem)
{
    uint64_t parsed = 0;
    bool beyond = false;
    if (is_word_kind(kind) ? !parse_word(kind, text, &parsed, problem)
                           : !parse_number(kind, text, &parsed, &beyond, problem))
        return false;
    if (beyond || parsed < least || parsed > most) {
        out_of_range(kind, least, most, text, problem);
        return false;
    }
    *value = parsed;
    return true;
}

void setting_format(enum setting_kind kind, uint64_t value, struct buf *out)
{
    size_t count;
    if (is_word_kind(kind)) {
        const char *word = word_of(kind, value);
        buf_append_str(out, word != NULL ? word : "?");
        return;
    }
    const struct unit *units = units_of(kind, &count), *unit = units;
    for (size_t i = 0; i < count; i++)
        if (value != 0 && value % units[i].factor == 0)
            unit = &units[i];
    buf_printf(out, "%" PRIu64 "%s", value / unit->factor, value == 0 ? "" : unit->name);
}
