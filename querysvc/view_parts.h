/* What the view's thread is made of: view.c has the thread and what it does with the logs, view_keeping.c the
 * store and what is told of it, view_work.c what others ask for and rows of what was trimmed. Everything here
 * is the thread's own but for what struct view says of its locks. */
#ifndef QUERYSVC_VIEW_PARTS_H
#define QUERYSVC_VIEW_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "view.h"
#include "view_gate.h"
#include "view_trim.h"

#define VIEW_RETRY_NS NS_PER_S

/* A log that is followed; the thread's own. */
struct followed {
    struct view_log log;
    struct log_reader *reader;
    enum sh_error stopped; /* why its next entries are not applied; SH_OK: they are */
    int64_t again_ns;      /* when a stopped one is looked at again */
    bool verified;         /* what was applied last stands in it */
    struct view_gate gate; /* before its next frame */
    uint64_t looked_end;   /* there are no more clock frames before that position, or they cannot be read */
};

struct view {
    struct view_options options;
    char logs[PATH_MAX], rows[PATH_MAX];
    pthread_t thread;
    /* The thread's own. */
    struct followed all[VIEW_LOGS_MAX];
    size_t count;
    struct view_vector applied, flushed;
    struct view_doubts doubts;
    struct view_trim trim;      /* of rows, under way */
    struct view_vector trimmed; /* rows of what lies before these LSNs are gone */
    int64_t trimmed_ns;         /* when it was last looked what is trimmed */
    int64_t came_ns;            /* since when it has the rows that a member's view brought */
    bool is_told;               /* which logs there are */
    int64_t flushed_ns, closed_ns;
    uint64_t opened;       /* how often */
    int64_t tidy_again_ns; /* not before that: a row that is made ready may be of what was deleted since */
    struct view_vector awaited; /* up to there entries come as rows, until: */
    int64_t awaited_ns;
    bool caught_up, compared;   /* as in view_state */
    int64_t paused_ns;          /* since the disk is nearly full; 0: it isn't */
    char error[VIEW_ERROR_MAX]; /* of the store, or the disk */
    struct buf frames;
    struct view_tidying tidying;
    bool has_unflushed;       /* clock frames */
    pthread_rwlock_t reading; /* over store: the thread writes it, whoever reads the view reads it */
    struct view_store *store;
    atomic_bool closing;  /* readers are waited for */
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t wake;
    struct view_log told[VIEW_LOGS_MAX];
    size_t told_count;
    bool news, stop;
    bool flush_asked, import_over;
    struct view_group told_group;
    bool group_told;
    struct view_work *works; /* that are asked for */
    struct view_state state;
};

/* ---- view.c ---- */
/* Whether there is that log here; view: a struct view. */
bool view_holds(void *view, struct id16 log);

/* ---- view_keeping.c ---- */
/* Why a log is stopped. */
void view_describe(const struct view *v, const struct followed *f, char text[VIEW_ERROR_MAX]);
/* Of a log that waits for another one. */
void view_describe_wait(const struct followed *f, const struct view_gate *gate, char text[VIEW_ERROR_MAX]);
bool view_is_behind(const struct view *v, const struct followed *f);
/* For view_look, and who is told of changes. */
void view_publish(struct view *v);
/* What keeps the view from going on; logged when it is new. */
void view_name_error(struct view *v, const char *what);
/* False, and named: not now. */
bool view_open_store(struct view *v);
void view_close_store(struct view *v);
void view_fail_store(struct view *v, const char *error);
/* Otherwise the view stands still, before it takes the last of the disk. */
bool view_has_room(struct view *v);
void view_flush_now(struct view *v);
/* When what is applied goes to disk, if it is not asked for before; INT64_MAX: it is there. */
int64_t view_flush_due_ns(const struct view *v);

/* ---- view_work.c ---- */
/* A bounded number of rows of what was trimmed. */
void view_trim_rows(struct view *v);
/* What was asked for by view_ask. */
void view_do_works(struct view *v);

#endif
