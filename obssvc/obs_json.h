/* Reads JSON objects that others wrote: bodies of requests, lines of logs. Pure; allocates nothing, trusts
 * nothing.
 *
 * RFC 8259, with UTF-8 only; a nesting of at most OBS_JSON_DEPTH. */
#ifndef OBSSVC_OBS_JSON_H
#define OBSSVC_OBS_JSON_H

#include "buf.h"

enum { OBS_JSON_DEPTH = 16 };

/* Whether all of the text is one object; spaces may stand around it. */
bool obs_json_is_object(struct slice text);

struct obs_json_member {
    struct slice name;  /* as it is written between its quotes */
    struct slice value; /* as it is written, without spaces around it */
};
/* The next member of an object that was checked; *rest begins as the object's text. False: there are no more.
 */
bool obs_json_next(struct slice *rest, struct obs_json_member *member);
/* The value of that name, of the last member that has it; false: there is none. */
bool obs_json_find(struct slice object, const char *name, struct slice *value);

/* What a value says. False: it is of another kind, too large, or a text with a NUL in it. */
bool obs_json_text(struct slice value, char *out, size_t size);
bool obs_json_uint(struct slice value, uint64_t most, uint64_t *out);
bool obs_json_bool(struct slice value, bool *out);

#endif
