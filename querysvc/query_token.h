/* Tokens: version vectors as they come from clients, an array of [log uuid (bin 16), LSN], 256 logs at most.
 * Strictly read: what is no token is refused, never taken for an empty one. Pure. */
#ifndef QUERYSVC_QUERY_TOKEN_H
#define QUERYSVC_QUERY_TOKEN_H

#include "mp.h"
#include "view_apply.h"

/* The next place of an array that was entered; only log and LSN of out are set. False: there is none. */
bool token_next(struct mp *m, struct view_place *out);
/* 1: all of it is applied; so it is when the token is empty. 0: not yet. -1: malformed. */
int token_is_applied(const struct view_vector *applied, struct slice token);
/* The first place of a token that is not applied. False: there is none. */
bool token_missing(const struct view_vector *applied, struct slice token, struct view_place *out);
/* As a vector; a log that is named twice gets the higher LSN. False: malformed. */
bool token_read(struct slice token, struct view_vector *out);
/* Appends the vector as a token. */
void token_pack(const struct view_vector *vector, struct buf *out);

#endif
