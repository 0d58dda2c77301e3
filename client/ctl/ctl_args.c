/* Options and values, by the command's table and the global one. Options may stand anywhere; "--" ends them.
 */
#include "ctl.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "config_doc.h"
#include "frame.h"
#include "log.h"
#include "settings.h"

const struct ctl_option ctl_global_options[] = {
    {"endpoint", 'e', CTL_WORD, "E",
     "the node's query link, ipc:///run/shanghai/n1/query or tcp://host:port; several with commas; else "
     "$SHANGHAI_ENDPOINT",
     0, 0},
    {"config", 'c', CTL_WORD, "FILE", "topology file that names the node; else $SHANGHAI_CONFIG", 0, 0},
    {"node", 'N', CTL_WORD, "ID", "which node of the configuration; not needed when it has only one", 0, 0},
    {"format", 'f', CTL_WORD, "F", "text or json; raw too where payloads are printed", 0, 0},
    {"timeout", 't', CTL_TIME, "T", "how long to wait for the node, like 500ms; 30s without it", 1000000,
     UINT64_C(86400000000000)},
    {"help", 'h', CTL_FLAG, NULL, "this help", 0, 0},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

int ctl_usage(const struct ctl *ctl, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("shanghaictl: ", stderr);
    vfprintf(stderr, format, args);
    va_end(args);
    if (ctl->command != NULL)
        fprintf(stderr, "\nTry: shanghaictl %s --help\n", ctl->command->name);
    else
        fputs("\nTry: shanghaictl --help\n", stderr);
    return CTL_USAGE;
}

static const struct ctl_option *find_in(const struct ctl_option *table, const char *name, size_t len,
                                        char letter)
{
    for (; table != NULL && table->name != NULL; table++)
        if (letter != 0 ? table->letter == letter
                        : strlen(table->name) == len && memcmp(table->name, name, len) == 0)
            return table;
    return NULL;
}

static const struct ctl_option *find_option(const struct ctl *ctl, const char *name, size_t len, char letter)
{
    const struct ctl_option *own = ctl->command != NULL ? ctl->command->options : NULL;
    const struct ctl_option *found = find_in(own, name, len, letter);
    return found != NULL ? found : find_in(ctl_global_options, name, len, letter);
}

/* Says that there is no such option, and which one may be meant. */
static void unknown_option(const struct ctl *ctl, const char *arg)
{
    const struct ctl_option *tables[] = {ctl->command != NULL ? ctl->command->options : NULL,
                                         ctl_global_options};
    const char *names[2 * CTL_OPTIONS_MAX];
    size_t count = 0;
    struct buf hint = {0};
    char name[64];
    for (size_t i = 0; i < 2; i++)
        for (const struct ctl_option *o = tables[i]; o != NULL && o->name != NULL; o++)
            names[count++] = o->name;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(arg + 1 + (arg[1] == '-'), "="),
             arg + 1 + (arg[1] == '-'));
    const char *near = strlen(name) > 1 ? doc_nearest(name, names, count) : NULL;
    if (near != NULL)
        buf_printf(&hint, "; did you mean --%s?", near);
    ctl_usage(ctl, "no such option: %s%s", arg, buf_cstr(&hint));
    buf_free(&hint);
}

static bool read_number(const struct ctl *ctl, struct ctl_given *g)
{
    static const enum setting_kind kinds[] = {
        [CTL_NUMBER] = SETTING_COUNT, [CTL_SIZE] = SETTING_SIZE, [CTL_TIME] = SETTING_DURATION};
    const struct ctl_option *o = g->option;
    struct buf problem = {0};
    if (o->kind == CTL_FLAG || o->kind == CTL_WORD || o->kind == CTL_WORDS)
        return true;
    bool good = setting_parse(kinds[o->kind], o->least, o->most, g->text, &g->number, &problem);
    if (!good)
        ctl_usage(ctl, "--%s %s", o->name, buf_cstr(&problem));
    buf_free(&problem);
    return good;
}

static bool give(struct ctl *ctl, const struct ctl_option *option, const char *text)
{
    struct ctl_given *g = NULL;
    for (int i = 0; i < ctl->given_count; i++)
        if (ctl->given[i].option == option && option->kind != CTL_WORDS)
            g = &ctl->given[i]; /* the last one counts */
    if (g == NULL) {
        if (ctl->given_count == CTL_OPTIONS_MAX) {
            ctl_usage(ctl, "too many options");
            return false;
        }
        g = &ctl->given[ctl->given_count++];
    }
    *g = (struct ctl_given){.option = option, .text = text};
    return read_number(ctl, g);
}

/* argv[*i] starts with a dash; takes a value from the next one when it needs to. */
static bool parse_option(struct ctl *ctl, int argc, char **argv, int *i)
{
    const char *arg = argv[*i], *value = NULL;
    const struct ctl_option *option;
    if (arg[1] == '-') {
        const char *equals = strchr(arg, '=');
        size_t len = equals != NULL ? (size_t)(equals - arg) - 2 : strlen(arg) - 2;
        option = find_option(ctl, arg + 2, len, 0);
        value = equals != NULL ? equals + 1 : NULL;
    } else {
        option = find_option(ctl, NULL, 0, arg[1]);
        value = arg[2] != 0 ? arg + 2 : NULL;
    }
    if (option == NULL) {
        unknown_option(ctl, arg);
        return false;
    }
    if (option->kind == CTL_FLAG && value != NULL) {
        ctl_usage(ctl, "--%s takes no value: %s", option->name, arg);
        return false;
    }
    if (option->kind != CTL_FLAG && value == NULL) {
        if (*i + 1 >= argc) {
            ctl_usage(ctl, "%s needs a value", arg);
            return false;
        }
        value = argv[++*i];
    }
    return give(ctl, option, value);
}

static bool check_format(struct ctl *ctl)
{
    const char *format = ctl_word(ctl, "format", "text");
    if (strcmp(format, "text") == 0)
        ctl->format = CTL_TEXT;
    else if (strcmp(format, "json") == 0)
        ctl->format = CTL_JSON;
    else if (strcmp(format, "raw") == 0 && ctl->command != NULL && ctl->command->raw)
        ctl->format = CTL_RAW;
    else {
        bool raw = ctl->command != NULL && ctl->command->raw;
        ctl_usage(ctl, "--format must be %s, not `%s`", raw ? "text, json or raw" : "text or json", format);
        return false;
    }
    return true;
}

static bool check_values(const struct ctl *ctl)
{
    const struct ctl_command *command = ctl->command;
    if (ctl->value_count < command->values_least)
        ctl_usage(ctl, "%s: missing: %s", command->name, command->values);
    else if (command->values_most >= 0 && ctl->value_count > command->values_most)
        ctl_usage(ctl, "%s: unexpected: %s", command->name, ctl->values[command->values_most]);
    else
        return true;
    return false;
}

bool ctl_parse(struct ctl *ctl, int argc, char **argv, bool *help)
{
    bool options = true;
    for (int i = 0; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0)
            options = false;
        else if (options && argv[i][0] == '-' && argv[i][1] != 0) {
            if (!parse_option(ctl, argc, argv, &i))
                return false;
        } else {
            ctl->values[ctl->value_count++] = argv[i];
        }
    }
    *help = ctl_has(ctl, "help");
    return *help || ctl->command == NULL || (check_format(ctl) && check_values(ctl));
}

static const struct ctl_given *find_given(const struct ctl *ctl, const char *option)
{
    for (int i = 0; i < ctl->given_count; i++)
        if (strcmp(ctl->given[i].option->name, option) == 0)
            return &ctl->given[i];
    return NULL;
}

bool ctl_has(const struct ctl *ctl, const char *option)
{
    return find_given(ctl, option) != NULL;
}

const char *ctl_words(const struct ctl *ctl, const char *option, int number)
{
    for (int i = 0; i < ctl->given_count; i++)
        if (strcmp(ctl->given[i].option->name, option) == 0 && number-- == 0)
            return ctl->given[i].text;
    return NULL;
}

bool ctl_stream(const struct ctl *ctl, const char **stream)
{
    *stream = ctl_word(ctl, "stream", NULL);
    if (*stream == NULL || (strlen(*stream) <= STREAM_NAME_MAX && utf8_valid(slice_str(*stream))))
        return true;
    ctl_usage(ctl, "--stream must be at most %d bytes of UTF-8", STREAM_NAME_MAX);
    return false;
}

const char *ctl_word(const struct ctl *ctl, const char *option, const char *otherwise)
{
    const struct ctl_given *g = find_given(ctl, option);
    return g != NULL ? g->text : otherwise;
}

uint64_t ctl_number(const struct ctl *ctl, const char *option, uint64_t otherwise)
{
    const struct ctl_given *g = find_given(ctl, option);
    return g != NULL ? g->number : otherwise;
}
