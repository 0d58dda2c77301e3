/* version, config check and config show. */
#include "cmd.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "config_doc.h"

static int run_version(struct ctl *ctl)
{
#ifdef SHANGHAI_FAILPOINTS
    bool failpoints = true;
#else
    bool failpoints = false;
#endif
    if (ctl->format != CTL_JSON) {
        printf("shanghaictl %s%s\n", SHANGHAI_VERSION, failpoints ? " (with failpoints, for tests)" : "");
        return CTL_DONE;
    }
    struct json_writer j = {0};
    json_open(&j, NULL, '{');
    json_text(&j, "version", SHANGHAI_VERSION);
    json_bool(&j, "failpoints", failpoints);
    json_close(&j, '}');
    json_print(&j);
    return CTL_DONE;
}

const struct ctl_command cmd_version = {
    .name = "version", .values = "", .summary = "Version of this tool", .run = run_version};

/* ---------------------------------------------------------------- the configuration */

/* Loads the file named by the value or by --config. */
static int load(struct ctl *ctl, struct config *config, struct buf *errors)
{
    const char *file =
        ctl->value_count > 0 ? ctl->values[0] : ctl_word(ctl, "config", getenv("SHANGHAI_CONFIG"));
    if (file == NULL)
        return ctl_usage(ctl, "which file? Give it, --config or $SHANGHAI_CONFIG");
    struct stat about;
    bool is_dir = stat(file, &about) == 0 && S_ISDIR(about.st_mode);
    if (is_dir || access(file, R_OK) != 0) {
        fprintf(stderr, "shanghaictl: %s: %s\n", file, strerror(is_dir ? EISDIR : errno));
        return CTL_FAILED;
    }
    return config_load(file, ctl_word(ctl, "node", NULL), config, errors) ? CTL_DONE : CTL_NO;
}

static void print_check_json(const struct buf *errors, bool good)
{
    struct json_writer j = {0};
    json_open(&j, NULL, '{');
    json_bool(&j, "valid", good);
    json_open(&j, "errors", '[');
    for (size_t at = 0; at < errors->len;) {
        const uint8_t *newline = memchr(errors->data + at, '\n', errors->len - at);
        size_t end = newline != NULL ? (size_t)(newline - errors->data) : errors->len;
        json_slice(&j, NULL, slice_of(errors->data + at, end - at));
        at = end + 1;
    }
    json_close(&j, ']');
    json_close(&j, '}');
    json_print(&j);
}

static int run_check(struct ctl *ctl)
{
    struct config config;
    struct buf errors = {0};
    int code = load(ctl, &config, &errors);
    if (ctl->format == CTL_JSON && code <= CTL_NO)
        print_check_json(&errors, code == CTL_DONE);
    else if (code == CTL_NO)
        fwrite(errors.data, 1, errors.len, stderr);
    else if (code == CTL_DONE)
        printf("%s: good, %zu node%s\n", config.file, config.node_count, config.node_count == 1 ? "" : "s");
    if (code == CTL_DONE)
        config_free(&config);
    buf_free(&errors);
    return code;
}

const struct ctl_command cmd_config_check = {
    .name = "config check",
    .values = "[FILE]",
    .summary = "Check a topology file: all errors at once, with line and column",
    .values_most = 1,
    .run = run_check,
};

/* Names are texts even when they look like numbers. */
static bool is_name(const char *key)
{
    static const char *const names[] = {"name", "id", "host", "group", "service", "program"};
    for (size_t i = 0; key != NULL && i < sizeof names / sizeof names[0]; i++)
        if (strcmp(key, names[i]) == 0)
            return true;
    return false;
}

static void show_json_value(struct json_writer *j, const char *key, const struct doc_node *node)
{
    if (node->kind != DOC_SCALAR) {
        json_open(j, key, node->kind == DOC_MAP ? '{' : '[');
        for (const struct doc_node *n = node->first; n != NULL; n = n->next)
            show_json_value(j, node->kind == DOC_MAP ? n->key : NULL, n);
        json_close(j, node->kind == DOC_MAP ? '}' : ']');
        return;
    }
    const char *text = node->text;
    if (!is_name(key) && text[0] != 0 && text[strspn(text, "0123456789")] == 0)
        json_uint(j, key, strtoull(text, NULL, 10));
    else if (!is_name(key) && (strcmp(text, "true") == 0 || strcmp(text, "false") == 0))
        json_bool(j, key, text[0] == 't');
    else
        json_text(j, key, text);
}

static void show_json(struct slice yaml)
{
    struct json_writer j = {0};
    struct doc_problems problems = {.file = "config show"};
    struct doc_node *document = doc_parse(yaml, &problems);
    assert(document != NULL); /* our own text */
    show_json_value(&j, NULL, document);
    json_print(&j);
    doc_free(document);
    doc_problems_free(&problems);
}

static int run_show(struct ctl *ctl)
{
    struct config config;
    struct buf errors = {0}, text = {0};
    int code = load(ctl, &config, &errors);
    if (code == CTL_NO)
        fwrite(errors.data, 1, errors.len, stderr);
    if (code == CTL_DONE) {
        config_show(&config, &text);
        if (ctl->format == CTL_JSON)
            show_json(buf_slice(&text));
        else
            fwrite(text.data, 1, text.len, stdout);
        config_free(&config);
    }
    buf_free(&errors);
    buf_free(&text);
    return code;
}

const struct ctl_command cmd_config_show = {
    .name = "config show",
    .values = "[FILE]",
    .summary = "Show what a topology file comes to, defaults included",
    .values_most = 1,
    .run = run_show,
};
