/* How a view that lacks entries gets them from a member's view (docs/adr/0012). Pure: what has happened and
 * the time come in, actions go out; one of them at a time is under way.
 *
 *   idle ──lacks──► listing ──► looking ──► opening ──► beginning ──► asking ◄─► storing
 *    ▲ ▲              ▲   (each member)                                            │ no more
 *    │ │              │                                                            ▼
 *    │ │           pausing ◄── ending ◄──────────── any failure           installing
 *    │ │  nobody helps ▲                                                           │
 *    │ └───────────────┼──────────────────── ending ◄── settling ◄─────────────────┘
 *    └── lacks nothing ┘
 *
 * A member is asked again at any time: nothing is half done here or there. What came is dropped when the next
 * attempt begins, or querysvc ends. */
#ifndef QUERYSVC_VIEW_FETCH_H
#define QUERYSVC_VIEW_FETCH_H

#include "clock.h"
#include "view_merge_in.h"

enum { FETCH_MEMBERS_MAX = 16, FETCH_NODE_MAX = 64, FETCH_TEXT_MAX = 256 };

enum fetch_state {
    FETCH_IDLE,
    FETCH_LISTING,    /* who is there? */
    FETCH_LOOKING,    /* how far is that member's view? */
    FETCH_OPENING,    /* it makes a checkpoint */
    FETCH_BEGINNING,  /* a place for the rows is made */
    FETCH_ASKING,     /* for the next piece */
    FETCH_STORING,    /* a piece is looked at and written */
    FETCH_INSTALLING, /* the rows become readable */
    FETCH_SETTLING,   /* until what follows them is held here */
    FETCH_ENDING,     /* the member may let go of it */
    FETCH_PAUSING,    /* nobody can help now */
    FETCH_COMPARED,   /* that it was compared is written down */
};

/* A log whose next entries are trimmed here. */
struct fetch_need {
    struct id16 log;
    uint64_t applied; /* LSN */
    uint64_t first;   /* first LSN that is left */
};

/* What the view is, when members are looked at. */
struct fetch_own {
    const struct fetch_need *needs;
    size_t need_count;
    bool compares; /* the view has not been compared with a member's since it was begun, and is up to date */
    const struct view_vector *applied;
    const struct id16 *held; /* logs that there are here */
    size_t held_count;
};

enum fetch_action_kind {
    FETCH_NOTHING,
    FETCH_LIST,
    FETCH_LOOK,
    FETCH_OPEN,
    FETCH_BEGIN, /* with the answer to FETCH_OPEN */
    FETCH_ROWS,
    FETCH_STORE, /* with the answer to FETCH_ROWS */
    FETCH_INSTALL,
    FETCH_CLOSE,
    FETCH_DROP, /* what has come is of no use; nothing is under way because of it */
    FETCH_NOTE, /* that the view was compared */
};

struct fetch_member {
    char id[FETCH_NODE_MAX + 1];
    unsigned failures; /* since one that went well */
    bool answered;     /* in this round; else: */
    char why[64];      /* it does not */
    uint64_t reaches;  /* LSN that its view has of the first log that is lacking */
    unsigned helps;    /* how many logs it has more of */
};

struct view_fetch {
    enum fetch_state state;
    struct fetch_member members[FETCH_MEMBERS_MAX];
    size_t member_count, at; /* at: whom it is about */
    struct fetch_need first_need;
    size_t need_count;
    unsigned strange_rounds; /* in a row, a member had logs that are unknown here */
    bool pausing_next;       /* behind FETCH_ENDING */
    bool drop;               /* an action that is due */
    enum fetch_action_kind action;
    uint64_t id;
    uint64_t rows, bytes, total;
    int64_t due_ns;      /* of pausing and settling; INT64_MAX: none */
    int64_t deadline_ns; /* all rows are here by then, or it is given up */
    unsigned pauses;     /* in a row */
    char lacks[FETCH_TEXT_MAX];
};

struct fetch_action {
    enum fetch_action_kind kind;
    const char *node;
    uint64_t id;
};

void view_fetch_init(struct view_fetch *f);
/* Takes the next action off; FETCH_NOTHING: there is none. */
struct fetch_action view_fetch_next(struct view_fetch *f);
/* INT64_MAX: nothing is due. */
int64_t view_fetch_due_ns(const struct view_fetch *f);
/* The view, whenever it may have changed, and when something is due; in other states than idle, pausing and
 * settling it is only looked at when that is over. settled: what is applied is held in all logs. */
void view_fetch_look(struct view_fetch *f, int64_t now_ns, const struct fetch_own *own, bool settled);
/* Answer to FETCH_LIST; id: random, for the checkpoint that may be asked for. */
void view_fetch_listed(struct view_fetch *f, int64_t now_ns, const char (*ids)[FETCH_NODE_MAX + 1],
                       size_t count, uint64_t id);
/* Answer to FETCH_LOOK. */
void view_fetch_looked(struct view_fetch *f, int64_t now_ns, const struct view_vector *theirs,
                       const struct fetch_own *own);
/* Answer to FETCH_OPEN, FETCH_BEGIN, FETCH_ROWS, FETCH_INSTALL, FETCH_CLOSE, FETCH_NOTE. */
void view_fetch_done(struct view_fetch *f, int64_t now_ns, uint64_t total);
/* Answer to FETCH_STORE: so much has come in all. */
void view_fetch_stored(struct view_fetch *f, int64_t now_ns, uint64_t rows, uint64_t bytes, bool more);
/* What was under way came to nothing. is_gone: the member has nothing to close. */
void view_fetch_failed(struct view_fetch *f, int64_t now_ns, const char *why, bool is_gone);

#endif
