/* shanghaictl: what its files share.
 *
 *   ctl_main.c      which command; its help; the list of all
 *   ctl_args.c      options and values by tables        ctl_when.c      times as people write them
 *   ctl_node.c      which node: endpoints, supervisor's socket, client of the library
 *   ctl_append.c    what became of an append, and what it depends on
 *   ctl_session.c   files of sessions and positions
 *   ctl_log.c       which log: the node's own or a copy
 *   ctl_text.c      columns, units, colours, errors     ctl_payload.c   entries as text, JSON, raw
 *   ctl_progress.c  the bar on a terminal               ../json         JSON
 *   cmd_*.c         the commands                        bench_*.c       what `bench` measures
 *
 * A command is a row of a table: names, options, help, and a function that returns the exit code. */
#ifndef CTL_H
#define CTL_H

#include <stdio.h>

#include "buf.h"
#include "clock.h"
#include "exit_code.h"
#include "json_writer.h"
#include "shanghai.h"

/* Exit codes: 0 done, 1 the answer is no (not found, damage found), 2 usage, 3 could not reach or failed. */
enum ctl_exit { CTL_DONE = 0, CTL_NO = 1, CTL_USAGE = 2, CTL_FAILED = 3 };

enum ctl_format { CTL_TEXT, CTL_JSON, CTL_RAW };

/* ---------------------------------------------------------------- commands and options */

enum ctl_kind { CTL_FLAG, CTL_WORD, CTL_WORDS /* any number of times */, CTL_NUMBER, CTL_SIZE, CTL_TIME };

struct ctl_option {
    const char *name; /* without the dashes; NULL ends a table */
    char letter;      /* short form, 0 for none */
    enum ctl_kind kind;
    const char *value; /* what stands in the help for the value */
    const char *prose;
    uint64_t least, most; /* of numbers, sizes (bytes), times (ns) */
};

struct ctl;
struct ctl_command {
    const char *name;   /* "append", "log verify" */
    const char *values; /* synopsis of what follows the options; "" for none */
    const char *summary;
    const char *more;                 /* further paragraphs for its help, or NULL */
    const struct ctl_option *options; /* NULL for none */
    int values_least, values_most;    /* -1: any number */
    bool raw;                         /* --format raw makes sense */
    bool reads;                       /* changes nothing, so that no outcome is ever unknown */
    bool of_log;                      /* --node with an endpoint says whose log, not which node is asked */
    int (*run)(struct ctl *ctl);
};

enum { CTL_OPTIONS_MAX = 32 };
struct ctl_given {
    const struct ctl_option *option;
    const char *text;
    uint64_t number;
};

/* One invocation. */
struct ctl {
    const struct ctl_command *command;
    struct ctl_given given[CTL_OPTIONS_MAX];
    int given_count;
    const char **values;
    int value_count;
    enum ctl_format format;
    bool colour;
    int64_t started_ns;
};

extern const struct ctl_command *const ctl_commands[]; /* ends with NULL */
int ctl_main(int argc, char **argv);

extern const struct ctl_option ctl_global_options[];
/* Sorts argv into ctl; false when something is wrong (said on stderr). *help: asked for. */
bool ctl_parse(struct ctl *ctl, int argc, char **argv, bool *help);
bool ctl_has(const struct ctl *ctl, const char *option);
const char *ctl_word(const struct ctl *ctl, const char *option, const char *otherwise);
uint64_t ctl_number(const struct ctl *ctl, const char *option, uint64_t otherwise);
/* The number-th value of a CTL_WORDS, from 0 on; NULL: there are no more. */
const char *ctl_words(const struct ctl *ctl, const char *option, int number);
/* --stream, NULL without it; false (said) when no stream can have that name. */
bool ctl_stream(const struct ctl *ctl, const char **stream);
/* --since in ms since 1970, 0 without it; false (said) when it is no time. */
bool ctl_since(const struct ctl *ctl, int64_t *ms);
/* Wrong usage: says so with a hint at the help; returns CTL_USAGE. */
__attribute__((format(printf, 2, 3))) int ctl_usage(const struct ctl *ctl, const char *format, ...);
/* The help of all commands, of those that start with a word, or of one. */
void ctl_help_all(FILE *out);
bool ctl_help_group(FILE *out, const char *word);
void ctl_help_command(FILE *out, const struct ctl_command *command);

/* ---------------------------------------------------------------- the node */

/* The endpoints of the query link by --endpoint, $SHANGHAI_ENDPOINT or the configuration; false when there
 * are none (said). Freed by ctl_endpoints_free. */
struct ctl_endpoints {
    char *text[8];
    size_t count;
};
bool ctl_find_endpoints(const struct ctl *ctl, struct ctl_endpoints *out);
void ctl_endpoints_free(struct ctl_endpoints *endpoints);
/* --node is there to say whose log is meant. */
bool ctl_node_names_log(const struct ctl *ctl);
/* Default options with the node's endpoints (borrowed), --timeout and --ack-timeout. */
struct sh_options ctl_client_options(const struct ctl *ctl, const struct ctl_endpoints *endpoints);
/* The same, opened; CTL_DONE or an exit code (said). */
int ctl_open(const struct ctl *ctl, struct sh_client **client);
/* The run directory of the node on this machine; false (said) when it can't be known. */
bool ctl_run_dir(const struct ctl *ctl, char *out, size_t size);
/* The data directory by --data or the configuration; false (said) when neither says. */
bool ctl_data_dir(const struct ctl *ctl, char *out, size_t size);
uint32_t ctl_timeout_ms(const struct ctl *ctl);
/* Of commands that append: the acknowledgement wanted (false, said: there is no such one), and how long it is
 * waited for. */
#define CTL_ACK_OPTIONS                                                                                      \
    {"ack", 'a', CTL_WORD, "LEVEL", "local, quorum or all: how far an entry must be durable", 0, 0},         \
    {                                                                                                        \
        "ack-timeout", 'T', CTL_TIME, "T", "how long to wait for quorum or all, 5s without it", 0,           \
            UINT64_C(86400000000000)                                                                         \
    }
bool ctl_ack(const struct ctl *ctl, enum sh_ack *ack);
uint32_t ctl_ack_timeout_ms(const struct ctl *ctl);
const char *ctl_ack_name(enum sh_ack ack);
/* ---- ctl_append.c ---- */
/* LOG:LSN, or the word for nothing (LSN 0). False (said): neither. */
bool ctl_position(const struct ctl *ctl, const char *option, const char *text, const char *nothing,
                  struct sh_version *out);
bool ctl_parse_position(const char *text, const char *nothing, struct sh_version *out);
/* ctl_fail_node for an append: a condition that does not hold is an answer (conflict, unless its condition is
 * SIZE_MAX or it is NULL); whose outcome is unknown is named (id, of sequence 0 when it is not). */
int ctl_fail_append(const struct ctl *ctl, const char *what, enum sh_error error, const char *detail,
                    const struct sh_append_id *id, const struct sh_conflict *conflict);
/* Says what failed, on stderr, in the format asked for; returns the exit code that it means. The detail, when
 * there is one, stands for the first clause of the error's own text, which it says more exactly. */
int ctl_fail(const struct ctl *ctl, const char *what, enum sh_error error, const char *detail);
/* The same with nothing but this text. */
int ctl_fail_text(const struct ctl *ctl, const char *what, enum sh_error error, const char *text);
/* The same, with more fields of the JSON object: "" or text that begins with a comma. */
int ctl_fail_more(const struct ctl *ctl, const char *what, enum sh_error error, const char *text,
                  const char *fields);
/* The text of ctl_fail, and of ctl_fail_node, appended. */
void ctl_error_text(const struct ctl *ctl, enum sh_error error, const char *detail, struct buf *out);
void ctl_node_error_text(const struct ctl *ctl, enum sh_error error, const char *detail, struct buf *out);
/* The same for an answer of the node: where it was looked for is added when it could not be reached. */
int ctl_fail_node(const struct ctl *ctl, const char *what, enum sh_error error, const char *detail);
/* Why a socket can't be used, as a clause with what to do; NULL: it is there and may be used. */
const char *ctl_socket_problem(const char *path);
int ctl_exit_of(enum sh_error error);

/* ---------------------------------------------------------------- version vectors in files */

#define CTL_SESSION_OPTION                                                                                   \
    {                                                                                                        \
        "session", 's', CTL_WORD, "FILE",                                                                    \
            "remembers in FILE what was written and seen: later commands with it see that too, on any node", \
            0, 0                                                                                             \
    }
/* What stands in the option's file, of which there may be none yet; *session is NULL without the option. The
 * caller frees it. CTL_DONE or an exit code (said). */
int ctl_session_take(const struct ctl *ctl, const char *option, struct sh_session **session);
/* Replaces the option's file: a kill leaves the old one or the new one. NULL does nothing. */
int ctl_session_keep(const struct ctl *ctl, const char *option, const struct sh_session *session);
/* Reads all of an open file; false: that failed. */
bool ctl_read_all(FILE *in, struct buf *out);

/* A client, and what --session FILE remembers. */
struct ctl_session {
    struct ctl *ctl;
    struct sh_client *client;
    struct sh_session *session; /* NULL without --session */
};
/* CTL_DONE or an exit code (said); then nothing is open. */
int ctl_session_open(struct ctl *ctl, struct ctl_session *run);
/* Keeps the session, and closes both; returns the exit code of all. */
int ctl_session_close(struct ctl_session *run, int code);

/* ---------------------------------------------------------------- text */

enum { CTL_TEXT_MAX = 32 };
/* "1.5 MiB", "12,345", "1.2 M", "3.4 s" */
const char *ctl_bytes(uint64_t bytes, char out[CTL_TEXT_MAX]);
const char *ctl_grouped(uint64_t number, char out[CTL_TEXT_MAX]);
const char *ctl_rate(double per_s, char out[CTL_TEXT_MAX]);
const char *ctl_duration(int64_t ns, char out[CTL_TEXT_MAX]);
/* "1.2s", "12s", "3m", "5h", "12d"; "-" when negative: not known. For columns. */
const char *ctl_age(int64_t ms, char out[CTL_TEXT_MAX]);
/* A time: RFC 3339 ("2026-11-26T03:30:00Z", "2026-11-26 03:30:00.5+01:00"), or how long ago ("10m", "2h").
 * now_ns and *ms since 1970. False: neither. */
bool ctl_parse_time(const char *text, int64_t now_ns, int64_t *ms);
/* Local time of a wall clock's ns since 1970, to the millisecond. */
const char *ctl_time(int64_t real_ns, char out[CTL_TEXT_MAX]);

/* Rows of aligned columns: cells are copied, and may hold styles; a column is right-aligned when its head
 * starts with '>'. */
struct ctl_table {
    struct buf cells; /* NUL-terminated texts */
    size_t columns, count;
};
void ctl_table_head(struct ctl_table *table, size_t columns, const char *const *heads);
__attribute__((format(printf, 2, 3))) void ctl_table_cell(struct ctl_table *table, const char *format, ...);
/* Prints and frees it; heads in bold on a terminal. */
void ctl_table_print(const struct ctl *ctl, struct ctl_table *table);
/* "name:     value" lines. */
__attribute__((format(printf, 3, 4))) void ctl_line(const struct ctl *ctl, const char *name,
                                                    const char *format, ...);
/* Escape sequences, or "" without colour. */
const char *ctl_style(const struct ctl *ctl, const char *sequence);
#define CTL_BOLD   "\033[1m"
#define CTL_RED    "\033[31m"
#define CTL_GREEN  "\033[32m"
#define CTL_YELLOW "\033[33m"
#define CTL_PLAIN  "\033[0m"
/* Appends text so that it can't disturb a terminal: control characters and bad UTF-8 as \xNN. */
void ctl_safe(struct buf *out, struct slice text);
/* False once standard output has failed: whoever prints much stops then. */
bool ctl_can_print(void);
/* False once nobody reads it any more, as far as can be known without writing: for waits between outputs. */
bool ctl_is_read(void);
/* Flushes stdout; CTL_FAILED (said, but for a pipe that nobody reads) when that or any earlier write failed,
 * code otherwise. */
int ctl_finish(int code);

/* ---------------------------------------------------------------- progress */

struct ctl_progress {
    bool shown;
    const char *what;
    int64_t started_ns, drawn_ns;
};
/* Shows nothing unless stderr is a terminal. */
void ctl_progress_start(struct ctl_progress *p, const char *what);
/* total 0: not known. note: behind the bar, may be NULL. */
void ctl_progress_show(struct ctl_progress *p, uint64_t done, uint64_t total, const char *note);
void ctl_progress_end(struct ctl_progress *p);

/* ---------------------------------------------------------------- entries */

/* One entry to stdout (fully buffered) in the format asked for. */
void ctl_print_event(const struct ctl *ctl, const struct sh_event *event, struct buf *scratch);
/* The same, with the log that it is in, of which there are several. */
void ctl_print_stream_event(const struct ctl *ctl, const struct sh_event *event, struct buf *scratch);

#endif
