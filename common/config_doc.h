/* A YAML file as a small tree whose every part knows its line and column, and the list of what is wrong with
 * it.
 *
 * Bounded for hostile files: size, nesting, number of values, keys of one map. Anchors, aliases and tags are
 * refused, so that nothing in a file can be larger than the file. */
#ifndef COMMON_CONFIG_DOC_H
#define COMMON_CONFIG_DOC_H

#include "buf.h"

enum {
    DOC_BYTES_MAX = 1 << 20,
    DOC_DEPTH_MAX = 32,
    DOC_VALUES_MAX = 32768,
    DOC_KEYS_MAX = 256,
    DOC_PROBLEMS_MAX = 200,
};

enum doc_kind { DOC_SCALAR, DOC_LIST, DOC_MAP };

/* One value. Children of a map have a key. Owned by its parent. */
struct doc_node {
    enum doc_kind kind;
    unsigned line, column; /* of the value, from 1 */
    char *text;            /* of a scalar */
    char *key;             /* in a map */
    unsigned key_line, key_column;
    struct doc_node *first, *last, *next; /* children, in the order of the file */
    size_t count;                         /* of children */
};

/* What is wrong with a file; zero-initialise with the name, then doc_problems_free. */
struct doc_problems {
    const char *file;
    struct doc_problem {
        unsigned line, column;
        char *text;
    } * list;
    size_t count, cap;
};

/* Adds a problem at a place; line 0: of the file as a whole. Beyond DOC_PROBLEMS_MAX they are only counted.
 */
__attribute__((format(printf, 4, 5))) void doc_problem(struct doc_problems *p, unsigned line, unsigned column,
                                                       const char *format, ...);
/* "FILE:LINE:COLUMN: text" for each, in the order of the file. */
void doc_problems_print(struct doc_problems *p, struct buf *out);
void doc_problems_free(struct doc_problems *p);

/* NULL: not YAML, or beyond a bound; a problem says why. A tree may come with problems too (a key given
 * twice). */
struct doc_node *doc_parse(struct slice text, struct doc_problems *p);
void doc_free(struct doc_node *node);

/* The value of a key, NULL when it is absent. */
const struct doc_node *doc_get(const struct doc_node *map, const char *key);
/* "a map", "a list", "a value". */
const char *doc_kind_name(enum doc_kind kind);

/* The nearest of the words when it is near enough to be meant, else NULL. */
const char *doc_nearest(const char *text, const char *const *words, size_t count);
/* Appends "; did you mean `x`?" when there is a nearest word, else nothing. Returns out's text. */
const char *doc_hint(struct buf *out, const char *text, const char *const *words, size_t count);
/* Text as it may stand in a message: shortened, without control characters. */
struct doc_shown {
    char text[44];
};
struct doc_shown doc_show(const char *text);

#endif
