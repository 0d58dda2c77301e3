/* YAML to a bounded tree with marks, by libyaml's events. Nothing in a file is fatal: all that is wrong with
 * it is listed. */
#include "config_doc.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* ------------------------------------------------------------ problems */

void doc_problem(struct doc_problems *p, unsigned line, unsigned column, const char *format, ...)
{
    if (p->count++ >= DOC_PROBLEMS_MAX)
        return;
    if (p->list == NULL)
        p->list = xcalloc(DOC_PROBLEMS_MAX, sizeof *p->list);
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    p->list[p->count - 1] = (struct doc_problem){line, column, xstrdup(text)};
}

static size_t problems_kept(const struct doc_problems *p)
{
    return p->count < DOC_PROBLEMS_MAX ? p->count : DOC_PROBLEMS_MAX;
}

static int compare_places(const void *a, const void *b)
{
    const struct doc_problem *x = a, *y = b;
    if (x->line != y->line)
        return x->line < y->line ? -1 : 1;
    if (x->column != y->column)
        return x->column < y->column ? -1 : 1;
    return strcmp(x->text, y->text);
}

void doc_problems_print(struct doc_problems *p, struct buf *out)
{
    size_t kept = problems_kept(p);
    if (kept > 0)
        qsort(p->list, kept, sizeof *p->list, compare_places);
    for (size_t i = 0; i < kept; i++) {
        if (p->list[i].line == 0)
            buf_printf(out, "%s: %s\n", p->file, p->list[i].text);
        else
            buf_printf(out, "%s:%u:%u: %s\n", p->file, p->list[i].line, p->list[i].column, p->list[i].text);
    }
    if (p->count > kept)
        buf_printf(out, "%s: and %zu more problems\n", p->file, p->count - kept);
}

void doc_problems_free(struct doc_problems *p)
{
    for (size_t i = 0; i < problems_kept(p); i++)
        free(p->list[i].text);
    free(p->list);
    p->list = NULL;
    p->count = 0;
}

struct doc_shown doc_show(const char *text)
{
    struct doc_shown shown;
    snprintf(shown.text, sizeof shown.text, "%.40s", text);
    if (strlen(text) > 40)
        memcpy(shown.text + 37, "...", 4);
    for (char *c = shown.text; *c != 0; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return shown;
}

/* ------------------------------------------------------------ near words */

enum { WORD_MAX = 64 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Optimal string alignment distance: insertions, deletions, changes, swapped neighbours. */
static size_t word_distance(const char *a, const char *b)
{
    size_t rows[3][WORD_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    size_t m = strlen(a), n = strlen(b);
    assert(m <= WORD_MAX && n <= WORD_MAX);
    for (size_t j = 0; j <= n; j++)
        last[j] = j;
    for (size_t i = 1; i <= m; i++) {
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t change = last[j - 1] + (a[i - 1] != b[j - 1]);
            row[j] = least(least(last[j] + 1, row[j - 1] + 1), change);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], before[j - 2] + 1);
        }
        size_t *spare = before;
        before = last;
        last = row;
        row = spare;
    }
    return last[n];
}

const char *doc_nearest(const char *text, const char *const *words, size_t count)
{
    const char *best = NULL;
    size_t len = strlen(text);
    if (len == 0 || len > WORD_MAX)
        return NULL;
    size_t below = len == 1 ? 1 : len <= 3 ? 2 : len <= 6 ? 3 : len / 3 + 1;
    for (size_t i = 0; i < count; i++) {
        size_t distance = strlen(words[i]) > WORD_MAX ? below : word_distance(text, words[i]);
        if (distance < below) {
            below = distance;
            best = words[i];
        }
    }
    return best;
}

const char *doc_hint(struct buf *out, const char *text, const char *const *words, size_t count)
{
    const char *near = doc_nearest(text, words, count);
    out->len = 0;
    if (near != NULL)
        buf_printf(out, "; did you mean `%s`?", near);
    return buf_cstr(out);
}

/* ------------------------------------------------------------ the tree */

const char *doc_kind_name(enum doc_kind kind)
{
    static const char *const names[] = {"a value", "a list", "a map"};
    return names[kind];
}

const struct doc_node *doc_get(const struct doc_node *map, const char *key)
{
    assert(map->kind == DOC_MAP);
    for (const struct doc_node *child = map->first; child != NULL; child = child->next)
        if (strcmp(child->key, key) == 0)
            return child;
    return NULL;
}

/* Deep trees are no danger here: the parser allows DOC_DEPTH_MAX levels. */
void doc_free(struct doc_node *node)
{
    while (node != NULL) {
        struct doc_node *next = node->next;
        doc_free(node->first);
        free(node->text);
        free(node->key);
        free(node);
        node = next;
    }
}

static void doc_adopt(struct doc_node *parent, struct doc_node *child)
{
    if (parent->last == NULL)
        parent->first = child;
    else
        parent->last->next = child;
    parent->last = child;
    parent->count++;
}

/* What stands between two events: the open lists and maps, and the key whose value comes next. */
struct doc_builder {
    struct doc_problems *problems;
    struct doc_node *open[DOC_DEPTH_MAX];
    size_t depth, values;
    struct doc_node *root;
    char *key;
    unsigned key_line, key_column;
};

static void problem_at(struct doc_builder *b, const yaml_mark_t *mark, const char *text)
{
    doc_problem(b->problems, (unsigned)mark->line + 1, (unsigned)mark->column + 1, "%s", text);
}

/* Hands a finished or opened value to its parent. */
static bool place_value(struct doc_builder *b, struct doc_node *node)
{
    if (b->depth == 0) {
        b->root = node;
        return true;
    }
    struct doc_node *parent = b->open[b->depth - 1];
    node->key = b->key;
    node->key_line = b->key_line;
    node->key_column = b->key_column;
    b->key = NULL;
    const struct doc_node *twin = parent->kind == DOC_MAP ? doc_get(parent, node->key) : NULL;
    if (twin != NULL)
        doc_problem(b->problems, node->key_line, node->key_column,
                    "key `%s` is given twice, first in line %u", doc_show(node->key).text, twin->key_line);
    doc_adopt(parent, node);
    if (parent->kind != DOC_MAP || parent->count <= DOC_KEYS_MAX)
        return true;
    doc_problem(b->problems, node->key_line, node->key_column, "more than %d keys in one map", DOC_KEYS_MAX);
    return false;
}

static bool expects_key(const struct doc_builder *b)
{
    return b->depth > 0 && b->open[b->depth - 1]->kind == DOC_MAP && b->key == NULL;
}

static struct doc_node *new_value(struct doc_builder *b, const yaml_event_t *event, enum doc_kind kind)
{
    if (++b->values > DOC_VALUES_MAX) {
        problem_at(b, &event->start_mark, "too many values in the file");
        return NULL;
    }
    struct doc_node *node = xcalloc(1, sizeof *node);
    node->kind = kind;
    node->line = (unsigned)event->start_mark.line + 1;
    node->column = (unsigned)event->start_mark.column + 1;
    return node;
}

static bool on_scalar(struct doc_builder *b, const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    if (strlen(text) != event->data.scalar.length) {
        problem_at(b, &event->start_mark, "a value cannot hold a NUL character");
        return false;
    }
    if (expects_key(b)) {
        b->key = xstrdup(text);
        b->key_line = (unsigned)event->start_mark.line + 1;
        b->key_column = (unsigned)event->start_mark.column + 1;
        return true;
    }
    struct doc_node *node = new_value(b, event, DOC_SCALAR);
    if (node == NULL)
        return false;
    node->text = xstrdup(text);
    return place_value(b, node);
}

static bool on_open(struct doc_builder *b, const yaml_event_t *event, enum doc_kind kind)
{
    if (expects_key(b)) {
        problem_at(b, &event->start_mark, "a key must be a plain word");
        return false;
    }
    if (b->depth == DOC_DEPTH_MAX) {
        problem_at(b, &event->start_mark, "nested too deeply");
        return false;
    }
    struct doc_node *node = new_value(b, event, kind);
    if (node == NULL)
        return false;
    bool placed = place_value(b, node);
    b->open[b->depth++] = node;
    return placed;
}

static bool has_anchor_or_tag(const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return event->data.scalar.anchor != NULL || event->data.scalar.tag != NULL;
    case YAML_SEQUENCE_START_EVENT:
        return event->data.sequence_start.anchor != NULL || event->data.sequence_start.tag != NULL;
    case YAML_MAPPING_START_EVENT:
        return event->data.mapping_start.anchor != NULL || event->data.mapping_start.tag != NULL;
    default:
        return event->type == YAML_ALIAS_EVENT;
    }
}

/* Whether to go on. */
static bool on_event(struct doc_builder *b, const yaml_event_t *event)
{
    if (has_anchor_or_tag(event)) {
        problem_at(b, &event->start_mark, "anchors, aliases and tags are not supported");
        return false;
    }
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (b->root == NULL)
            return true;
        problem_at(b, &event->start_mark, "a second document starts here; one is expected");
        return false;
    case YAML_SCALAR_EVENT:
        return on_scalar(b, event);
    case YAML_SEQUENCE_START_EVENT:
        return on_open(b, event, DOC_LIST);
    case YAML_MAPPING_START_EVENT:
        return on_open(b, event, DOC_MAP);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        assert(b->depth > 0);
        b->depth--;
        return true;
    default:
        return true;
    }
}

/* The reader's errors (encoding) come with an offset into the file, all others with a mark. */
static void syntax_problem(struct doc_builder *b, const yaml_parser_t *parser, struct slice text)
{
    unsigned line = (unsigned)parser->problem_mark.line + 1,
             column = (unsigned)parser->problem_mark.column + 1;
    if (parser->error == YAML_READER_ERROR) {
        line = column = 1;
        for (size_t i = 0; i < parser->problem_offset && i < text.len; i++) {
            column = text.data[i] == '\n' ? 1 : column + 1;
            line += text.data[i] == '\n';
        }
    }
    const char *what = parser->problem != NULL ? parser->problem : "not YAML";
    doc_problem(b->problems, line, column, "%s%s%s", what, parser->context != NULL ? " " : "",
                parser->context != NULL ? parser->context : "");
}

static bool run_parser(struct doc_builder *b, struct slice text)
{
    yaml_parser_t parser;
    yaml_event_t event;
    bool more = true, done = false;
    if (!yaml_parser_initialize(&parser))
        abort();
    yaml_parser_set_input_string(&parser, text.data, text.len);
    while (more) {
        if (!yaml_parser_parse(&parser, &event)) {
            syntax_problem(b, &parser, text);
            break;
        }
        done = event.type == YAML_STREAM_END_EVENT;
        more = on_event(b, &event) && !done;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return done;
}

struct doc_node *doc_parse(struct slice text, struct doc_problems *p)
{
    struct doc_builder b = {.problems = p};
    if (text.len > DOC_BYTES_MAX) {
        doc_problem(p, 0, 0, "larger than %d bytes", DOC_BYTES_MAX);
        return NULL;
    }
    bool done = run_parser(&b, slice_of(text.len == 0 ? (const void *)"" : text.data, text.len));
    free(b.key);
    if (done && b.root == NULL)
        doc_problem(p, 1, 1, "the file is empty");
    if (done)
        return b.root;
    doc_free(b.root);
    return NULL;
}
