/* Inside of replsvc's core.
 *
 *   repl_core.c    opening, membership, what walsvc holds, time
 *   repl_followed.c  which logs are followed, and where their copies stand
 *   repl_follow.c  a followed log: whom to ask, what comes, what is stored
 *   repl_check.c   whether bytes are what was asked for, and where they part from those here
 *   repl_serve.c   fetches of others that wait for something to be sent
 *   repl_quorum.c  how far the own log is replicated
 *   repl_repair.c  damaged ranges are fetched and put back
 *   repl_proof.c   whether others have more of the own log than there is here, or other frames
 *   repl_fork.c    what one member has of a log, and where that parts from what is here
 *   repl_over.c    a forked copy gets the frames of a member, from where they part
 *   repl_compare.c sealed segments are compared with those of others
 *   repl_holds.c   what others still need is not trimmed
 *   repl_gone.c    logs that nobody extends any more, and all hold to their end
 *   repl_out.c     actions, notices, and what is told of all this */
#ifndef REPL_PARTS_H
#define REPL_PARTS_H

#include "repl_core.h"

/* A member, as one followed log sees it; same index as in core->members. */
struct repl_source {
    int64_t avoid_until_ns;
    unsigned failures; /* in a row */
    bool is_trimmed;   /* it has no more what comes next: its first segment begins here: */
    struct log_chain first;
};

struct repl_follow {
    struct id16 log;
    bool used;             /* the slot is */
    bool placed;           /* walsvc has said how far the copy is */
    bool held;             /* there is a copy */
    bool anew;             /* the next fetch begins the copy at `head` */
    struct log_chain head; /* behind what was handed to walsvc */
    struct log_chain durable;
    uint64_t first_lsn; /* of the copy */
    unsigned stores;    /* outstanding, with so many bytes: */
    uint64_t unsynced;
    bool lost;    /* a store failed: once none is outstanding, the place is asked for */
    bool refused; /* so was the last store that was answered */
    int source;   /* that is asked; -1: none */
    bool fetching;
    uint64_t serial;
    int64_t asked_ns, fetch_due_ns; /* without an answer by then the source is given up */
    int64_t retry_ns;
    int64_t progress_ns;         /* last time that frames came, or the source had no more */
    int64_t more_ns;             /* since when somebody is known to have more */
    uint64_t best_end, best_lsn; /* the furthest that anybody is known to have */
    int64_t caught_up_ns;        /* last time that the durable end was that */
    uint64_t retries;
    int64_t trimmed_ns; /* since when what comes next was found to be trimmed; 0: it was not */
    bool forked;
    bool off_chain;                  /* the origin has said last that the copy is longer, or another one */
    bool parts;                      /* the origin has given up a chain that this may be: to be looked at, */
    uint64_t parts_end;              /* from there back */
    int64_t parts_ns;                /* when it was found to be behind last */
    uint32_t given_up[GIVEN_UP_MAX]; /* by the origin */
    size_t given_up_count;
    bool over; /* frames are fetched that replace what is here, from `lead` alone */
    int lead;  /* a member that was found to have what comes next, whatever it is heard to hold; -1: none */
    struct repl_source sources[REPL_MEMBERS_MAX];
};

struct repl_parked {
    uint64_t token;
    size_t member;
    int64_t due_ns;
    struct msg_fetch fetch;
};

struct repl_reached {
    uint64_t lsn, end;
};

struct repl_position_of {
    bool counts;                 /* for quorum and all: it has caught up once, or was there when this began */
    struct repl_reached proved;  /* so far its copy is known to be on the own log's chain, durable or not */
    struct repl_reached reached; /* durable, and on that chain: what counts */
    bool suspect;                /* it says that its copy is longer, or another one: to be looked at, */
    int64_t look_due_ns;         /* not before then */
    unsigned silences;           /* in a row: it was looked at, and did not answer */
    int64_t seen_ns;             /* 0: never */
    uint64_t goal_end;           /* where the log ended a while ago, at */
    int64_t goal_ns;
    int64_t had_all_ns; /* it has all that the log had then; */
    uint64_t next_end;  /* and when it has come here, */
    int64_t next_ns;    /* all that it had at this time; 0: nothing is awaited */
};

/* The one damaged range that is being repaired. */
struct repl_mending {
    struct id16 log;                    /* zero: none is */
    struct repl_ask_damage asked, next; /* what led to it; what comes after it, when it cannot be had */
    struct repl_damage damage;
    enum { MEND_ASKED, MEND_WAITING, MEND_FETCHING, MEND_WRITING } step;
    int source; /* tried last; -1: none yet */
    unsigned tried;
    uint64_t serial;
    int64_t due_ns; /* MEND_WAITING: to be tried again; MEND_FETCHING: the source is given up */
};

/* One member is looked at: what it has of a log, from the end of what is here, or from further back. */
struct repl_look_at {
    enum { LOOK_NONE, LOOK_ASKING, LOOK_BACK, LOOK_COMPARING } step;
    enum { FROM_END, FROM_SEGMENT, FROM_BEHIND } where;
    struct id16 log;
    size_t member;
    uint64_t serial;
    int64_t due_ns;      /* ASKING: it is given up */
    struct log_chain at; /* that is asked for */
    unsigned silences;   /* in a row, at that place */
    uint64_t its_lsn;    /* how far it has the log, by its word */
    bool says_behind;    /* and nothing of another chain */
};

enum repl_finding {
    FOUND_SILENT,  /* it doesn't answer */
    FOUND_NOTHING, /* nothing of use */
    FOUND_SAME,    /* a part of what is here */
    FOUND_MORE,    /* frames that continue what is here */
    FOUND_OTHER,   /* other frames than here, from where they part */
    FOUND_TRIMMED, /* what follows the end here, and more, is gone there */
    FOUND_STUCK,   /* another chain, by its word, and no segment is left from which it could be shown */
};

/* Who is looked at: all members for the own log, one after the other; one that says that it has more of it
 * than there is; the origin of a forked copy. */
struct repl_proof {
    bool waits; /* walsvc does */
    enum { PROOF_NONE, PROOF_ROUND, PROOF_SUSPECT, PROOF_ORIGIN } looks;
    size_t member; /* of the round: that is looked at, or comes next */
    unsigned answers;
    bool is_awaited; /* a member of this round has what is not here */
    int64_t due_ns;  /* the round begins anew; 0: nothing is due */
    int64_t told_ns; /* walsvc was told a verdict; 0: it was not */
    struct repl_look_at look;
};

/* One log after the other is compared with that of one member. */
struct repl_compare {
    int64_t interval_ns; /* 0: never */
    enum { COMPARE_RESTING, COMPARE_PAUSING, COMPARE_ASKING, COMPARE_READING, COMPARE_LOOKING } step;
    int64_t due_ns;               /* RESTING, PAUSING: goes on; ASKING: the member is given up */
    unsigned round;               /* who is asked first when there is no origin to ask */
    size_t next_held;             /* the log that comes next */
    struct id16 log;              /* zero: the next one is to be taken */
    bool tried[REPL_MEMBERS_MAX]; /* in vain */
    int member;                   /* that is asked */
    char peer[CONFIG_ID_MAX + 1];
    uint64_t serial;
    uint64_t after, next; /* base LSNs: behind which was asked, and is to be asked then (0: no more) */
    unsigned looks;       /* at segments of this log, in this round */
    struct repl_digest theirs[REPL_DIGESTS_MAX];
    size_t count;
    /* A segment in which a copy differed from its origin's: that again, a round later, is not the origin's
     * index that lied. One at a time. */
    struct id16 suspect_log; /* zero: none */
    struct repl_digest suspect;
    unsigned suspect_round;
};

struct repl_told_hold {
    struct id16 log; /* zero: none */
    uint64_t lsn;
};

/* A copy, and who has the log up to the same end. */
struct repl_gone_log {
    struct id16 log; /* zero: none */
    struct log_chain end;
    struct id16 has[REPL_MEMBERS_MAX]; /* members, by their own logs */
    size_t has_count;
    enum { REPL_TOLD_NOTHING, REPL_TOLD_NOT, REPL_TOLD_GONE } told; /* to walsvc */
};

struct repl_gone {
    bool is_certain;
    struct repl_gone_log *logs;     /* REPL_LOGS_MAX */
    struct repl_closed_log *closed; /* REPL_CLOSED_MAX */
    size_t closed_count;
    size_t at_log, at_member; /* that comes next */
    bool is_asking;
    uint64_t serial;
    struct held_log asked; /* of what log, with what end, */
    struct id16 asked_member;
    int64_t due_ns; /* the answer is given up, or the next pass begins */
    bool is_telling;
    struct msg_log_gone telling;
    int64_t tell_ns; /* not before */
};

/* Of fetches, behind those of the logs. */
enum { REPL_REPAIR_SLOT = REPL_LOGS_MAX, REPL_FORK_SLOT, REPL_COMPARE_SLOT, REPL_GONE_SLOT };
_Static_assert((int)REPL_GONE_SLOT + 1 == (int)REPL_SLOTS, "each has its socket");

enum { REPL_PARKED_MAX = 128, REPL_NOTICES = 16, REPL_ENDS = 1024 };

struct repl_core {
    char node[CONFIG_ID_MAX + 1];
    struct id16 own;
    bool knows_members;
    struct repl_member *members;                         /* REPL_MEMBERS_MAX */
    struct repl_position_of positions[REPL_MEMBERS_MAX]; /* of the own log at each */
    struct log_chain ends[REPL_ENDS];                    /* where the own log has ended lately, the */
    size_t end_count;                                    /* next one is at end_count % REPL_ENDS */
    size_t member_count;
    struct id16 wal_boot;
    bool knows_logs, own_copy;
    uint32_t given_up[GIVEN_UP_MAX]; /* of the own log */
    size_t given_up_count;
    struct held_log held[REPL_LOGS_MAX]; /* [0]: the own one */
    size_t held_count;
    struct repl_follow *follows; /* REPL_LOGS_MAX slots */
    uint64_t serial;
    struct repl_parked parked[REPL_PARKED_MAX];
    size_t parked_count;
    struct msg_replicated told; /* to walsvc */
    int64_t positions_due_ns, holds_due_ns;
    struct repl_mending mending;
    struct repl_proof proof;
    struct repl_compare compare;
    struct repl_gone gone;
    struct repl_told_hold (*holds)[REPL_LOGS_MAX]; /* of each member: what walsvc was told */
    struct repl_action *actions;
    size_t action_first, action_count, action_cap;
    struct {
        const char *text;
        char id[CONFIG_ID_MAX + 1];
        int64_t told_ns;
    } notices[REPL_NOTICES]; /* told lately */
    struct repl_counters counters;
};

/* ---- repl_core.c ---- */
int repl_member_of(const struct repl_core *core, struct slice id); /* -1: none */
/* The member whose own log it is; -1: none. */
int repl_origin(const struct repl_core *core, struct id16 log);
const struct held_log *repl_held(const struct repl_core *core, struct id16 log);
/* A copy ends before where walsvc last said that it does: nothing is served from behind there. */
void repl_cut_held(struct repl_core *core, struct id16 log, const struct log_chain *durable);
/* How far a log is durable here. NULL: it isn't held, or its place is asked for. */
const struct log_chain *repl_end_here(struct repl_core *core, struct id16 log);

/* ---- repl_followed.c ---- */
/* Looks which logs there are to follow, and how far others are. */
void repl_follow_members(struct repl_core *core, int64_t now_ns);
void repl_follow_logs(struct repl_core *core, int64_t now_ns, bool rebooted);
struct repl_follow *repl_follow_of(struct repl_core *core, struct id16 log); /* NULL: it isn't followed */
/* Somebody has the log up to there. */
void repl_follow_note_best(struct repl_follow *follow, int64_t now_ns, uint64_t lsn, uint64_t end);
/* So has the copy here: whether it has all that anybody has. */
void repl_follow_note_caught_up(struct repl_follow *follow, int64_t now_ns);
/* The own log is followed no more once it is extended again. */
void repl_follow_leave_own(struct repl_core *core);
/* What the member holds of a log; NULL: nothing that is known of. */
const struct repl_watermark *repl_watermark_of(const struct repl_member *member, struct id16 log);
uint64_t repl_watermark_end(const struct repl_member *member, struct id16 log);

/* ---- repl_follow.c ---- */
/* Sends what fetches can be sent. */
void repl_follow_go(struct repl_core *core, int64_t now_ns);
void repl_follow_tick(struct repl_core *core, int64_t now_ns);
int64_t repl_follow_due_ns(const struct repl_core *core);
void repl_follow_push_positions(struct repl_core *core);
/* The answer to its fetch is wanted no more. */
void repl_follow_cancel(struct repl_core *core, struct repl_follow *follow);
/* Bytes that may still be asked for. */
uint64_t repl_follow_credit(const struct repl_follow *follow);
enum repl_state repl_follow_state(const struct repl_core *core, const struct repl_follow *follow);

/* ---- repl_check.c ---- */
/* Walks the bytes of a segment (base LSN `segment`) from chain on, which moves behind them. False: they are
 * not whole valid frames of that log that continue it. anew: nothing before the header is known. */
bool repl_check_bytes(struct id16 log, uint64_t segment, struct slice bytes, bool anew,
                      struct log_chain *chain);
/* The same, but what comes before the bytes is not known, whatever they begin with: only the position, and
 * the LSN at least. */
bool repl_check_repair(struct id16 log, uint64_t segment, struct slice bytes, struct log_chain *chain);

/* ---- repl_serve.c ---- */
void repl_serve_wake(struct repl_core *core);
void repl_serve_tick(struct repl_core *core, int64_t now_ns);
int64_t repl_serve_due_ns(const struct repl_core *core);
/* Members are about to be replaced: map gives the new index of each, -1: gone. */
void repl_serve_remap(struct repl_core *core, const int map[REPL_MEMBERS_MAX]);

/* ---- repl_quorum.c ---- */
/* The own log's end was told; it was `before`. When walsvc was started anew (it has forgotten what it was
 * told), what was known of copies holds on only when that is the same place: the log may have lost its end,
 * and have gone on otherwise. Else, too, when it has become shorter, or ends with another frame. */
void repl_quorum_own_log(struct repl_core *core, const struct log_chain *before, bool rebooted);
/* What a member has fetched, or would fetch, is not on the chain here. */
void repl_quorum_off_chain(struct repl_core *core, size_t member);
/* What a member says of its copy of the own log. */
void repl_quorum_note(struct repl_core *core, int64_t now_ns, size_t member,
                      const struct msg_position *position);
/* The log is about to be longer than `before`, or the member is known from now on. */
void repl_quorum_note_lag(struct repl_core *core, int64_t now_ns, uint64_t before);
/* Tells walsvc when more is replicated, or somebody else is to count. */
void repl_quorum_tell(struct repl_core *core, int64_t now_ns);
/* The same again: walsvc may have forgotten it with the session. */
void repl_quorum_tell_again(struct repl_core *core);

/* ---- repl_repair.c ---- */
void repl_repair_logs(struct repl_core *core, int64_t now_ns);
void repl_repair_tick(struct repl_core *core, int64_t now_ns);
int64_t repl_repair_due_ns(const struct repl_core *core);
void repl_repair_remap(struct repl_core *core, const int map[REPL_MEMBERS_MAX]);
bool repl_repair_fetched(struct repl_core *core, int64_t now_ns, uint64_t serial, uint32_t type,
                         struct slice body);
void repl_repair_fetch_failed(struct repl_core *core, int64_t now_ns, uint64_t serial);

/* ---- repl_proof.c ---- */
/* rebooted: walsvc was started anew. */
void repl_proof_begin(struct repl_core *core, bool waits, bool rebooted);
/* The members are others now: all are asked. */
void repl_proof_members(struct repl_core *core);
void repl_proof_go(struct repl_core *core, int64_t now_ns);
void repl_proof_tick(struct repl_core *core, int64_t now_ns);
int64_t repl_proof_due_ns(const struct repl_core *core);
/* A member says that it has more of the own log than there is here, or other frames. */
void repl_proof_suspect(struct repl_core *core, int64_t now_ns, size_t member);
/* What the look at a member has come to; fork: with MORE and OTHER. */
void repl_proof_found(struct repl_core *core, int64_t now_ns, enum repl_finding finding,
                      const struct repl_fork *fork);

/* ---- repl_fork.c ---- */
/* Looks at what a member has of a log: from its end here on, or from a segment at or before that position. */
void repl_fork_look(struct repl_core *core, int64_t now_ns, struct id16 log, size_t member);
void repl_fork_look_back(struct repl_core *core, struct id16 log, size_t member, uint64_t position);
void repl_fork_stop(struct repl_core *core);
void repl_fork_tick(struct repl_core *core, int64_t now_ns);
bool repl_fork_fetched(struct repl_core *core, int64_t now_ns, uint64_t serial, uint32_t type,
                       struct slice body);
void repl_fork_fetch_failed(struct repl_core *core, int64_t now_ns, uint64_t serial);

/* ---- repl_over.c ---- */
/* What comes next replaces what is here from the fork on. Nothing may be outstanding. */
void repl_over_begin(struct repl_core *core, struct repl_follow *follow, size_t member,
                     const struct log_chain *fork);
/* There is no more of it: the copy is followed from its end again. */
void repl_over_end(struct repl_follow *follow);
/* The origin of a copy answers that it is forked, or behind: notes whether the origin gave up that chain. */
void repl_over_note(struct repl_core *core, struct repl_follow *follow, int64_t now_ns,
                    const struct msg_fetch_reply *reply);

/* ---- repl_compare.c ---- */
/* The members are others now. */
void repl_compare_members(struct repl_core *core, int64_t now_ns);
void repl_compare_tick(struct repl_core *core, int64_t now_ns);
int64_t repl_compare_due_ns(const struct repl_core *core);
void repl_compare_fetched(struct repl_core *core, int64_t now_ns, uint64_t serial, uint32_t type,
                          struct slice body);
void repl_compare_fetch_failed(struct repl_core *core, int64_t now_ns, uint64_t serial);

/* ---- repl_holds.c ---- */
void repl_holds_tick(struct repl_core *core, int64_t now_ns);
/* A member is gone. */
void repl_holds_release(struct repl_core *core, const char *id);

/* ---- repl_gone.c ---- */
/* It was closed, and its copy dropped here: it isn't followed. */
bool repl_gone_is_closed(const struct repl_core *core, struct id16 log);
/* walsvc was told that it is closed. */
bool repl_gone_is_gone(const struct repl_core *core, struct id16 log);
/* The member has said that it has the log up to just the end that it has here. */
bool repl_gone_has(const struct repl_core *core, size_t member, const struct held_log *held);
void repl_gone_members(struct repl_core *core, int64_t now_ns);
void repl_gone_logs(struct repl_core *core, int64_t now_ns, bool rebooted);
void repl_gone_tick(struct repl_core *core, int64_t now_ns);
int64_t repl_gone_due_ns(const struct repl_core *core);
void repl_gone_fetched(struct repl_core *core, int64_t now_ns, uint64_t serial, uint32_t type,
                       struct slice body);
void repl_gone_fetch_failed(struct repl_core *core, int64_t now_ns, uint64_t serial);
/* Answers a fetch of a log that isn't held by the register, as if its end alone were left of it. False: it
 * isn't there. */
bool repl_gone_serve(struct repl_core *core, uint64_t token, const struct msg_fetch *fetch);

/* ---- repl_out.c ---- */
struct repl_action *repl_put(struct repl_core *core, enum repl_action_kind kind);
/* One that asks a member by a slot's socket; its serial is a new one. */
struct repl_action *repl_put_question(struct repl_core *core, enum repl_action_kind kind, unsigned slot,
                                      size_t member);
/* Not again for a minute with the same text and id. */
void repl_notice(struct repl_core *core, int64_t now_ns, int level, const char *text, const char *id,
                 const char *detail);
/* However often. */
void repl_notice_each(struct repl_core *core, int level, const char *text, const char *id,
                      const char *detail);
/* Once a minute, whatever he calls himself. */
void repl_notice_of_stranger(struct repl_core *core, int64_t now_ns, const char *text, struct slice sender);

#endif
