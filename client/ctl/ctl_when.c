/* Times as people write them: RFC 3339 with an offset from UTC, or how long ago. */
#include "ctl.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config_doc.h"
#include "settings.h"

enum { S_PER_MINUTE = 60, S_PER_HOUR = 3600, S_PER_DAY = 86400, MOST_YEAR = 9999 };

/* A number of exactly so many digits, in a range; false: there is none. */
static bool take_digits(const char **at, unsigned digits, int least, int most, int *value)
{
    *value = 0;
    for (unsigned i = 0; i < digits; i++, (*at)++) {
        if (!isdigit((unsigned char)**at))
            return false;
        *value = *value * 10 + (**at - '0');
    }
    return *value >= least && *value <= most;
}

static bool take(const char **at, const char *any_of)
{
    if (**at == 0 || strchr(any_of, **at) == NULL)
        return false;
    (*at)++;
    return true;
}

static int days_in(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && is_leap);
}

static bool take_date(const char **at, struct tm *tm)
{
    int year, month;
    if (!take_digits(at, 4, 1970, MOST_YEAR, &year) || !take(at, "-") || !take_digits(at, 2, 1, 12, &month) ||
        !take(at, "-") || !take_digits(at, 2, 1, days_in(year, month), &tm->tm_mday))
        return false;
    tm->tm_year = year - 1900;
    tm->tm_mon = month - 1;
    return true;
}

/* Seconds may be 60: leap seconds. */
static bool take_clock(const char **at, struct tm *tm)
{
    return take_digits(at, 2, 0, 23, &tm->tm_hour) && take(at, ":") &&
           take_digits(at, 2, 0, 59, &tm->tm_min) && take(at, ":") && take_digits(at, 2, 0, 60, &tm->tm_sec);
}

/* The fraction of a second, in ms; what is finer is cut off. */
static bool take_fraction(const char **at, int *ms)
{
    *ms = 0;
    if (!take(at, "."))
        return true;
    if (!isdigit((unsigned char)**at))
        return false;
    for (int unit = 100; isdigit((unsigned char)**at); (*at)++, unit /= 10)
        *ms += (**at - '0') * unit;
    return true;
}

static bool take_offset(const char **at, int *seconds)
{
    int hours, minutes, sign = **at == '-' ? -1 : 1;
    *seconds = 0;
    if (take(at, "Zz"))
        return true;
    if (!take(at, "+-") || !take_digits(at, 2, 0, 23, &hours) || !take(at, ":") ||
        !take_digits(at, 2, 0, 59, &minutes))
        return false;
    *seconds = sign * (hours * S_PER_HOUR + minutes * S_PER_MINUTE);
    return true;
}

static bool parse_rfc3339(const char *text, int64_t *ms)
{
    struct tm tm = {0};
    int fraction, offset;
    const char *at = text;
    if (!take_date(&at, &tm) || !take(&at, "Tt ") || !take_clock(&at, &tm) ||
        !take_fraction(&at, &fraction) || !take_offset(&at, &offset) || *at != 0)
        return false;
    *ms = ((int64_t)timegm(&tm) - offset) * MS_PER_S + fraction;
    return true;
}

bool ctl_parse_time(const char *text, int64_t now_ns, int64_t *ms)
{
    struct buf problem = {0};
    uint64_t ago_ns;
    bool good = parse_rfc3339(text, ms);
    if (!good && setting_parse(SETTING_DURATION, 0, (uint64_t)now_ns, text, &ago_ns, &problem)) {
        *ms = (now_ns - (int64_t)ago_ns) / NS_PER_MS;
        good = true;
    }
    buf_free(&problem);
    return good && *ms > 0;
}

bool ctl_since(const struct ctl *ctl, int64_t *ms)
{
    const char *text = ctl_word(ctl, "since", NULL);
    *ms = 0;
    if (text == NULL || ctl_parse_time(text, clock_real_ns(), ms))
        return true;
    ctl_usage(ctl,
              "--since must be a time like 2026-11-26T03:30:00Z or 2026-11-26T04:30:00+01:00, or how long "
              "ago, like "
              "10m or 2h, not `%s`",
              doc_show(text).text);
    return false;
}
