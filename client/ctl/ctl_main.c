/* Finds the command that the arguments name, its help, and runs it. */
#include "ctl.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_doc.h"
#include "heap.h"
#include "log.h"

enum { HELP_COLUMNS = 100, HELP_INDENT = 28 };

/* The text from the indent on, in lines that fit. */
static void print_wrapped(FILE *out, const char *text)
{
    int column = HELP_INDENT;
    while (*text != 0) {
        int len = (int)strcspn(text, " ");
        if (column > HELP_INDENT && column + 1 + len > HELP_COLUMNS) {
            fprintf(out, "\n%*s", HELP_INDENT, "");
            column = HELP_INDENT;
        }
        column += fprintf(out, "%s%.*s", column > HELP_INDENT ? " " : "", len, text);
        text += len + (text[len] == ' ');
    }
    fputs("\n", out);
}

static bool has_name(const struct ctl_option *options, const char *name)
{
    for (; options != NULL && options->name != NULL; options++)
        if (strcmp(options->name, name) == 0)
            return true;
    return false;
}

static bool has_letter(const struct ctl_option *options, char letter)
{
    for (; options != NULL && options->name != NULL; options++)
        if (options->letter == letter)
            return true;
    return false;
}

/* Names and letters that `own` uses mean what they mean there. */
static void print_options(FILE *out, const struct ctl_option *options, const struct ctl_option *own)
{
    for (; options != NULL && options->name != NULL; options++) {
        char head[64];
        if (has_name(own, options->name))
            continue;
        bool lettered = options->letter != 0 && !has_letter(own, options->letter);
        int len = lettered ? snprintf(head, sizeof head, "-%c, --%s %s", options->letter, options->name,
                                      options->value != NULL ? options->value : "")
                           : snprintf(head, sizeof head, "    --%s %s", options->name,
                                      options->value != NULL ? options->value : "");
        fprintf(out, "  %-*s", HELP_INDENT - 2, head);
        if (len > HELP_INDENT - 3)
            fprintf(out, "\n%*s", HELP_INDENT, "");
        print_wrapped(out, options->prose);
    }
}

void ctl_help_command(FILE *out, const struct ctl_command *command)
{
    fprintf(out, "Usage: shanghaictl %s [options]%s%s\n\n%s.\n", command->name,
            command->values[0] != 0 ? " " : "", command->values, command->summary);
    if (command->more != NULL)
        fprintf(out, "\n%s\n", command->more);
    if (command->options != NULL) {
        fputs("\nOptions:\n", out);
        print_options(out, command->options, NULL);
    }
    fputs("\nGlobal options:\n", out);
    print_options(out, ctl_global_options, command->options);
}

static bool in_group(const char *name, const char *word)
{
    size_t len = strlen(word);
    return strncmp(name, word, len) == 0 && (name[len] == ' ' || name[len] == 0);
}

bool ctl_help_group(FILE *out, const char *word)
{
    bool any = false;
    for (const struct ctl_command *const *c = ctl_commands; *c != NULL; c++) {
        if (word != NULL && !in_group((*c)->name, word))
            continue;
        any = true;
        fprintf(out, "  %-16s%s\n", (*c)->name, (*c)->summary);
    }
    return any;
}

void ctl_help_all(FILE *out)
{
    fputs("Usage: shanghaictl COMMAND [options] [values]\n\nThe command line tool of Shanghai, a durable, "
          "replicated log store.\n\nCommands:\n",
          out);
    ctl_help_group(out, NULL);
    fputs("\nGlobal options, anywhere on the line:\n", out);
    print_options(out, ctl_global_options, NULL);
    fputs("\nExit codes: 0 done, 1 the answer is no (not found, damage found), 2 usage, 3 could not reach or "
          "failed.\nHelp of one command: shanghaictl COMMAND --help\n",
          out);
}

/* The command whose name's words are the first values; *words of them. */
static const struct ctl_command *find_command(const char *const *values, int count, int *words)
{
    for (const struct ctl_command *const *c = ctl_commands; *c != NULL; c++) {
        const char *name = (*c)->name, *space = strchr(name, ' ');
        size_t first = space != NULL ? (size_t)(space - name) : strlen(name);
        if (count < 1 || strlen(values[0]) != first || memcmp(values[0], name, first) != 0)
            continue;
        if (space == NULL) {
            *words = 1;
            return *c;
        }
        if (count > 1 && strcmp(values[1], space + 1) == 0) {
            *words = 2;
            return *c;
        }
    }
    return NULL;
}

/* The words that name the command are found first: which options there are depends on it. Values of global
 * options that stand before it are stepped over. */
static int name_words(int argc, char **argv, const char *words[2], int places[2])
{
    int found = 0;
    for (int i = 1; i < argc && found < 2; i++) {
        if (argv[i][0] != '-' || argv[i][1] == 0) {
            words[found] = argv[i];
            places[found++] = i;
            continue;
        }
        if (found > 0 || strcmp(argv[i], "--") == 0)
            break; /* options of the command: the second word would have stood before them */
        for (const struct ctl_option *o = ctl_global_options; o->name != NULL; o++)
            if (o->kind != CTL_FLAG && ((argv[i][1] == '-' && strcmp(argv[i] + 2, o->name) == 0) ||
                                        (argv[i][1] == o->letter && argv[i][2] == 0)))
                i++;
    }
    return found;
}

/* Says that there is no such command, and which one may be meant. */
static int no_such_command(const struct ctl *ctl, const char *const *words, int count)
{
    const char *names[64];
    size_t known = 0;
    struct buf given = {0}, hint = {0};
    for (const struct ctl_command *const *c = ctl_commands; *c != NULL && known < 64; c++)
        names[known++] = (*c)->name;
    buf_printf(&given, "%s%s%s", words[0], count > 1 ? " " : "", count > 1 ? words[1] : "");
    const char *near = doc_nearest(buf_cstr(&given), names, known);
    near = near != NULL ? near : doc_nearest(words[0], names, known);
    if (near != NULL)
        buf_printf(&hint, "; did you mean `%s`?", near);
    ctl_usage(ctl, "no such command: %s%s", count > 1 ? buf_cstr(&given) : words[0], buf_cstr(&hint));
    buf_free(&given);
    buf_free(&hint);
    return CTL_USAGE;
}

static int unknown_command(const struct ctl *ctl, const char *const *words, int count, bool help)
{
    const char *word = words[0];
    bool is_group = false;
    for (const struct ctl_command *const *c = ctl_commands; *c != NULL; c++)
        is_group = is_group || in_group((*c)->name, word);
    if (!is_group)
        return no_such_command(ctl, words, 1);
    if (count > 1 && !help)
        return no_such_command(ctl, words, 2);
    FILE *out = help ? stdout : stderr;
    fprintf(out, "Usage: shanghaictl %s COMMAND ...\n\n", word);
    ctl_help_group(out, word);
    return help ? ctl_finish(CTL_DONE) : CTL_USAGE;
}

static int no_command(struct ctl *ctl, int argc, char **argv, const char *const *words, int count)
{
    bool help = count == 1 && strcmp(words[0], "help") == 0;
    count = help ? 0 : count;
    for (int i = 1; i < argc; i++)
        help = help || strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
    if (count > 0)
        return unknown_command(ctl, words, count, help);
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--version") == 0) {
            printf("shanghaictl %s\n", SHANGHAI_VERSION);
            return ctl_finish(CTL_DONE);
        }
    ctl_help_all(help ? stdout : stderr);
    return help ? ctl_finish(CTL_DONE) : CTL_USAGE;
}

/* By the conventions of no-color.org and bixense.com/clicolors. */
static bool wants_colour(void)
{
    const char *force = getenv("CLICOLOR_FORCE");
    bool forced = force != NULL && force[0] != 0 && strcmp(force, "0") != 0;
    return getenv("NO_COLOR") == NULL && (forced || isatty(STDOUT_FILENO));
}

int ctl_main(int argc, char **argv)
{
    const char *names[2];
    int places[2], words = 0;
    struct ctl ctl = {.started_ns = clock_mono_ns(), .colour = wants_colour()};
    int found = name_words(argc, argv, names, places);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of the write */
    heap_keep_messages();
    log_setup("shanghaictl", "");
    log_set_level(LOG_ERROR);
    ctl.command = find_command(names, found, &words);
    if (ctl.command == NULL)
        return no_command(&ctl, argc, argv, names, found);
    int kept = 0;
    char **rest = xcalloc((size_t)argc, sizeof *rest);
    for (int i = 1; i < argc; i++)
        if ((words < 1 || i != places[0]) && (words < 2 || i != places[1]))
            rest[kept++] = argv[i];
    ctl.values = xcalloc((size_t)argc, sizeof *ctl.values);
    bool help = false;
    int code = CTL_USAGE;
    if (ctl_parse(&ctl, kept, rest, &help)) {
        if (help)
            ctl_help_command(stdout, ctl.command);
        code = ctl_finish(help ? CTL_DONE : ctl.command->run(&ctl));
    }
    free(ctl.values);
    free(rest);
    return code;
}
