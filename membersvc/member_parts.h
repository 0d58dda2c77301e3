/* Inside of membersvc's core: what its files share. Each part opens with the file that it is in.
 *
 * Two clocks: core->now as it came in, and core->awake_ns, which is the monotonic one without the time in
 * which this process can't have heard anything (self-doubt). All silences are measured by the second. */
#ifndef MEMBER_PARTS_H
#define MEMBER_PARTS_H

#include "member_wire.h"

enum {
    OBSERVERS_MAX = 5,
    AGREE = 3,     /* observers that must agree, when so many are possible */
    RELAYS = 3,    /* others that pass a probe on */
    FANOUT = 3,    /* members that a round of gossip goes to */
    TRIES = 5,     /* seeds of a node that isn't founded; tries of a member that is down; each interval */
    MATES_MAX = 7, /* members of the own group that get each heartbeat */
    CHUNK_MAX = 8 << 10, /* bytes of the records in one message */
    SENDS_MAX = 1 << 20,
    NOTICES_MAX = 256,
    COMPLAINTS_MAX = 64 /* kinds and senders that are remembered, so that each is named once a minute */
};
/* Earlier than any time. */
#define NEVER   (INT64_MIN / 2)
#define NO_TIME INT64_MAX
#define LEAP_MAX                                                                                             \
    (UINT64_C(1) << 32) /* that a record's generation or incarnation may be beyond what is known */

/* Sets that a member is in, for what would otherwise walk all of them. */
enum member_set_name {
    SET_TRIED, /* down, or not bound: nobody expects heartbeats of them, but they are tried */
    SET_MATES, /* on the ring, and of the own group */
    SETS
};
struct member_set {
    struct member **at;
    uint32_t count, cap;
};
enum { NO_SLOT = UINT32_MAX };

/* One member. Its record is kept as the bytes that travel; what is asked for often stands beside them. */
struct member {
    uint8_t *record;
    uint16_t record_bytes, host_at, host_bytes, port;
    uint8_t status; /* enum member_status */
    uint8_t shown;  /* instead of it, by a node that hears nobody: MEMBER_SUSPECT, MEMBER_DOWN; or 0 */
    bool bound, on_ring, drifting, unreachable;
    uint16_t mark_count, news_left; /* how often its record is still to be gossiped */
    uint32_t slots[SETS];
    uint64_t hash, place; /* member_hash of the record; where it stands on the ring */
    uint64_t generation, incarnation;
    struct id16 log, boot, not_log;
    int64_t heard_ns;  /* monotonic: last direct message */
    int64_t direct_ns; /* the same, awake */
    int64_t alive_ns;  /* awake: last sign of life, also through others */
    int64_t ahead_ms;
    int64_t answered_ns[ANSWERS];
    struct member_watermark *marks;
    uint64_t holdings; /* of the last watermarks that came, within the boot: */
    struct id16 holdings_boot;
    struct member *news_before, *news_behind;
    char id[];
};

struct opinion {
    const struct member *observer;
    uint64_t generation, incarnation;
    int64_t silent_ns, came_ns, answered_ns; /* awake */
};

/* A member that this node observes. */
struct watch {
    struct member *member;
    int64_t since_ns, next_probe_ns; /* awake */
    unsigned probes;                 /* since it was last heard */
    struct opinion opinions[OBSERVERS_MAX];
};

/* Rate limit of notices. */
struct complaint {
    uint64_t key;
    int64_t at_ns;
};

/* A node of the topology file; the texts are the core's. */
struct seed {
    const char *id, *host, *group;
    uint16_t port, admin_port;
};

struct kept_event;
struct adoption;

struct member_core {
    /* ---- who it is ---- */
    char cluster_name[CONFIG_ID_MAX + 1], id[CONFIG_ID_MAX + 1];
    uint8_t cluster[CLUSTER_ID_BYTES];
    struct id16 boot;
    struct seed *seeds;
    char *seed_texts;
    size_t seed_count, seed_next;
    uint64_t list; /* hash of the ids in the topology file */
    struct member_timing timing;
    uint64_t random;
    bool founded, has_left, replaced, refused, silent_seeds;
    bool forgot;              /* a member remembers it from before it was founded: see found_again */
    struct member_record own; /* as it speaks of itself; what holds may be another one, once it left */
    struct buf own_bytes;
    struct member *self; /* in the table */
    char text[MEMBER_TEXT_MAX];
    struct adoption *adoption;
    char asked[CONFIG_ID_MAX + 1]; /* who was asked for the own record, and has not told it */
    int64_t asked_ns;              /* monotonic */
    struct buf kept; /* records of a cluster that it founded and left for another, until it knows that one */

    /* ---- time ---- */
    struct member_time now;
    int64_t awake_ns, lost_ns, last_call_ns, due_ns;
    int64_t heartbeat_due_ns, gossip_due_ns, sync_due_ns; /* monotonic */
    int64_t opened_ns, any_ns; /* awake: when opened or founded, and the last message of a member */
    bool alone;                /* it hears nobody, and shows that */
    bool asks_next;            /* its next heartbeat asks for answers */

    /* ---- members ---- */
    struct member **by_id, **ring, **table; /* ordered by id; by place; open addressing by hash of the id */
    uint32_t count, cap, ring_count, table_cap, live_count;
    struct member_set sets[SETS];
    uint64_t view_hash;
    bool ring_changed;
    struct watch watches[OBSERVERS_MAX];
    uint32_t watch_count;
    struct member *news_first, *news_last;
    struct member_watermark marks[MEMBER_WATERMARKS_MAX];
    size_t mark_count;
    uint64_t holdings; /* counts on when one goes; 0: walsvc has not said yet which there are */
    bool marks_moved;
    char sync_with[CONFIG_ID_MAX + 1]; /* whose summary is awaited */
    char timed[CONFIG_ID_MAX + 1];     /* who was sent a probe last, and has not answered it, */
    int64_t timed_ns;                  /* at this time; monotonic */
    unsigned syncs;

    /* ---- what comes out ---- */
    struct buf sends;
    size_t sends_at;
    struct member_notice *notices;
    uint32_t notice_first, notice_count, notice_cap;
    struct complaint complaints[COMPLAINTS_MAX];
    struct kept_event **events; /* MEMBER_EVENTS_MAX of them, by number */
    struct member_events event_range;
    struct member_event *event_out;   /* what was last asked for */
    struct member_record *record_out; /* the same */
    struct member_counters counters;
    uint64_t version;
    struct buf message, array, record; /* scratch */
};

/* ---- member_core.c ---- */
/* Around each call: the time of it, with what self-doubt makes of it; then what is due next. */
void core_enter(struct member_core *core, struct member_time now);
void core_leave(struct member_core *core);
int64_t core_probe_ns(const struct member_core *core);
uint64_t core_random(struct member_core *core, uint64_t below);
bool core_is_member(const struct member_core *core);
void core_set_text(struct member_core *core, const char *text);

/* ---- member_table.c ---- */
struct member *table_find(const struct member_core *core, struct slice id);
/* Puts the record in place of the one that is there, if there is one. */
struct member *table_set(struct member_core *core, const struct member_record *record);
void table_unpack(const struct member *m, struct member_record *out);
struct slice table_bytes(const struct member *m);
struct slice table_host(const struct member *m);
void table_clear(struct member_core *core);

/* ---- member_ring.c ---- */
void ring_add(struct member_core *core, struct member *m);
void ring_remove(struct member_core *core, struct member *m);
/* The K behind m, and the K before it; returns how many. */
uint32_t ring_observers(const struct member_core *core, const struct member *m,
                        struct member *out[OBSERVERS_MAX]);
uint32_t ring_observed(const struct member_core *core, const struct member *m,
                       struct member *out[OBSERVERS_MAX]);
/* Up to `most` different ones by chance, neither this node nor `except`; returns how many. */
uint32_t ring_pick(struct member_core *core, const struct member *except, uint32_t most, struct member **out);
void set_add(struct member_core *core, enum member_set_name set, struct member *m);
void set_remove(struct member_core *core, enum member_set_name set, struct member *m);

/* ---- member_events.c ---- */
void event_add(struct member_core *core, enum member_event_kind kind, const struct member *m,
               const char *text);
/* The changes that the new record of m tells of; old: NULL for a new member. */
void event_of_change(struct member_core *core, const struct member_record *old, struct member *m,
                     const char *text);
/* Of one that was saved. */
void event_restore(struct member_core *core, const struct member_event *e);
void event_encode(const struct member_core *core, uint64_t number, struct buf *out);
enum sh_error event_decode(struct slice bytes, struct member_event *out);
void event_free(struct member_core *core);

/* ---- member_gate.c: messages that come in, and who may speak ---- */
void gate_receive(struct member_core *core, struct slice message);
/* An array of records; each is merged. False: not one. */
bool gate_take_members(struct member_core *core, struct slice members);
void gate_malformed(struct member_core *core, struct slice sender);

/* ---- member_merge.c: records that come in ---- */
/* True when it changed something. */
bool merge_record(struct member_core *core, const struct member_record *record, const char *text);
/* Counts are raised by one. Far beyond what is known nobody can have come by that: it would use them up. */
bool merge_is_leap(const struct member *known, const struct member_record *record);
/* The next incarnation; the highest there is has none. */
uint64_t merge_raised(uint64_t incarnation);
/* Says its own record anew to the table, its observers and all. */
void merge_own(struct member_core *core);
/* By this record the node has left or was replaced: how it speaks of itself from now on. */
void merge_out(struct member_core *core, const struct member_record *record);
/* The record of this node in the table is another's word: takes note of what it says. */
void merge_self(struct member_core *core, const struct member_record *record);

/* ---- member_observe.c ---- */
void observe_ring(struct member_core *core); /* the ring changed */
void observe_tick(struct member_core *core);
int64_t observe_due(const struct member_core *core); /* awake */
void observe_forget_opinions(struct member_core *core);
struct watch *observe_watch(struct member_core *core, const struct member *m);
/* A message came from it. */
void observe_heard(struct member_core *core, struct member *m);
int64_t observe_silent_ns(const struct member_core *core, const struct watch *w);

/* ---- member_probe.c ---- */
void probe_send(struct member_core *core, struct watch *w);
/* To one that may be well: only for the time that the answer takes. */
void probe_time(struct member_core *core, const struct member *to);
void probe_on_probe(struct member_core *core, struct member *from, const struct msg_probe *probe);
void probe_on_ack(struct member_core *core, struct member *from, const struct msg_probe_ack *ack);
void probe_on_opinion(struct member_core *core, struct member *from, const struct msg_opinion *opinion);
/* Whether enough observers say that it is silent. */
bool probe_agreed(const struct member_core *core, const struct watch *w);

/* ---- member_gossip.c ---- */
void gossip_news(struct member_core *core, struct member *m);
void gossip_drop(struct member_core *core, struct member *m);
/* Its record came from another, as it is here: counts as sent. When many have it, it soon ends. */
void gossip_seen(struct member_core *core, struct member *m);
void gossip_tick(struct member_core *core);
/* holdings: as in heartbeat. */
void gossip_take_marks(struct member_core *core, struct member *m, struct slice marks, uint64_t holdings);
void gossip_heartbeats(struct member_core *core);
void gossip_on_gossip(struct member_core *core, struct member *from, const struct msg_gossip *gossip);
/* Records that were asked for, with ids as in gossip.want. */
void gossip_answer_want(struct member_core *core, const struct address *to, struct slice want);

/* ---- member_sync.c ---- */
void sync_tick(struct member_core *core);
void sync_on_sync(struct member_core *core, struct member *from, uint64_t hash);
void sync_send_summary(struct member_core *core, const struct address *to);
void sync_on_summary(struct member_core *core, struct member *from, const struct msg_summary *summary);
/* Steps to the next entry of a summary; false at the end, or when it is malformed (then *bad). */
bool sync_entry(struct mp *m, struct slice *id, uint64_t *hash, bool *bad);

/* ---- member_found.c: the first members, and adopting a cluster ---- */
void found_start(struct member_core *core); /* nothing is saved: by the topology file */
/* Not founded, and the time has not come yet to say that nobody answers. */
bool found_is_hopeful(const struct member_core *core);
void found_tick(struct member_core *core); /* each heartbeat interval */
void found_adopt_tick(struct member_core *core);
int64_t found_due_ns(const struct member_core *core); /* of that: monotonic */
void found_on_message(struct member_core *core, uint32_t type, const struct member_record *from,
                      const void *message);
void found_on_refused(struct member_core *core, struct slice sender, const char *text);
/* From a member: perhaps with what it was asked for. */
void found_on_members(struct member_core *core, const char *from, struct slice members);
/* From a founded node that isn't known here. */
void found_on_stranger(struct member_core *core, uint32_t type, const struct member_record *from,
                       const void *message);
/* Whether `self`, as others have it, was said by this very log before it was founded, which it has forgotten;
 * or lets it in anew, while it takes itself for a founder. */
bool found_has_forgotten(const struct member_core *core, const struct member_record *self);
/* What it knows is of another cluster than its own: as if it had just started. from: whom it adopts from, or
 * NULL. No member outlives this call. */
void found_again(struct member_core *core, const struct member_record *from);
void found_free(struct member_core *core);

/* ---- member_seeds.c ---- */
void seeds_copy(struct member_core *core, const struct config_node *nodes, size_t count);
void seeds_free(struct member_core *core);
void seeds_try(struct member_core *core);

/* ---- member_state.c ---- */
enum sh_error state_load(struct member_core *core, struct id16 log, struct slice saved,
                         char text[MEMBER_TEXT_MAX]);

/* ---- member_change.c ---- */
/* Of the log of m: the LSNs that no other member is known to hold; 0: none. */
void change_only_own(const struct member_core *core, const struct member *m, struct id16 log, uint64_t *first,
                     uint64_t *last);

#endif
