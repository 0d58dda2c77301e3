/* What the files share that serve the view. */
#ifndef QUERYSVC_QUERY_VIEW_PARTS_H
#define QUERYSVC_QUERY_VIEW_PARTS_H

#include "query.h"
#include "view.h"

/* ---- query_view.c; only when there is a view ---- */
struct query_gets *query_gets_of(struct query *q);
struct query_holds *query_holds_of(struct query *q);
struct query_tidy *query_tidy_of(struct query *q);

/* ---- query_gets.c ---- */
struct query_gets *query_gets_open(struct query *q, struct view *view);
/* Before the view is closed; what was not answered never is. */
void query_gets_close(struct query_gets *gets);
/* What its token wants was applied when it was looked at last. Answered now or later. */
void query_gets_answer(struct query *q, struct link_token token, const struct msg_kv_get *m);
void query_gets_drop(struct query_gets *gets, uint64_t session);

/* ---- query_holds.c ---- */
struct query_holds *query_holds_open(struct query *q);
void query_holds_close(struct query *q, struct query_holds *holds);
/* How far the view is on disk, or what logs there are, may have changed. */
void query_holds_move(struct query *q);
void query_holds_drop(struct query *q, uint64_t session);

/* ---- query_tidy.c ---- */
struct query_tidy *query_tidy_open(struct query *q);
void query_tidy_close(struct query *q, struct query_tidy *tidy);
/* The view's state may have changed. */
void query_tidy_look(struct query *q, const struct view_state *state);

#endif
