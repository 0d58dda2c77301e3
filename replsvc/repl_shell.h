/* replsvc's shell: what its files share. One loop owns everything.
 *
 *   repl_service.c  birth and death, positions, what each turn of the loop ends with: the core's actions
 *   repl_fetcher.c  fetches: a REQ socket for each followed log
 *   repl_server.c   fetches of others: a REP socket
 *   repl_source.c   reading the frames that others are sent
 *   repl_back.c     reading the own frames, to find where others part from them
 *   repl_digests.c  reading digests of sealed segments, for others and to compare them with theirs
 *   repl_wal.c      the link to walsvc: how far its logs are, frames of copies
 *   repl_damage.c   what walsvc says of damage
 *   repl_closed.c   what walsvc is told, and says, of closed logs
 *   repl_members.c  the link to membersvc: who is in the group
 *   repl_view.c     checkpoints of the view, passed on
 *   repl_link.c     its own link: replicas, and what querysvc asks members
 *   repl_figures.c  what obssvc is told */
#ifndef REPL_SHELL_H
#define REPL_SHELL_H

#include "log_reader.h"
#include "pipeline.h"
#include "repl_core.h"
#include "repl_fetcher.h"
#include "repl_server.h"
#include "service.h"

enum {
    REPL_POSITIONS_PORT = 3,
    REPL_FETCH_PORT = 4,
    REPL_SOURCES = 64,
    REPL_MESSAGE_MAX = (16 << 20) + 4096
};

/* An open log that frames are read from, for one follower. */
struct repl_open_source {
    struct log_reader *reader;
    struct id16 log;
    uint64_t position; /* where it stands */
    int64_t used_ns;
};

/* Frames that walsvc has not answered yet; the message that holds them. */
struct repl_store_out {
    struct repl_store_out *next;
    uint64_t number;
    unsigned slot;
    struct id16 log;
    bool over;
    size_t bytes;
    struct repl_fetched *fetched;
};

struct repl_view;

/* Followers that were told to lag. */
struct repl_lagging {
    struct repl_lagging_member {
        char id[CONFIG_ID_MAX + 1];
        bool is_told;
    } all[REPL_MEMBERS_MAX];
};

struct repl_service {
    struct service *service;
    struct node_identity identity;
    struct repl_core *core;
    struct loop_timer tick;
    struct loop_hook hook;
    struct repl_fetcher *fetcher;
    struct repl_server *server;
    struct pipeline_in *positions_in;
    struct pipeline_out *positions_out;
    struct repl_fetched *fetched; /* the answer that the core is looking at */
    struct repl_open_source sources[REPL_SOURCES];
    struct buf body, frames; /* scratch */
    int64_t tidied_ns;
    struct repl_lagging lagging;

    struct link_client *wal;
    uint64_t logs, logs_again, replicated; /* numbers of requests; 0: none is out */
    struct msg_replicated to_tell;         /* while one is out */
    bool is_to_tell;
    struct id16 wal_boot;
    uint64_t logs_version;
    struct id16 closed_boot;
    uint64_t closed_version; /* of the register that the core knows, of that boot; 0: none */
    uint64_t closed_asked;   /* number of the request that is out */
    uint64_t gone;           /* the same */
    struct loop_timer logs_timer;
    int64_t logs_asked_ns;
    struct repl_store_out *stores;
    struct repl_fetched *repairing; /* holds the bytes of the repair that is out, */
    uint64_t repair;                /* with this number */
    struct {
        struct repl_ask_damage ask;
        uint64_t number, from; /* from: base LSN of the first segment that is told */
    } damage;                  /* the question that is out */
    uint64_t look, own_log;    /* the requests that are out */
    bool holds_looked_at;      /* those that are left from before were looked for */

    struct link_client *members;
    uint64_t nodes; /* the request that is out */
    uint64_t next_event;
    struct buf nodes_told; /* the last answer's nodes, once the node belongs to a cluster */
    struct loop_timer nodes_timer;

    struct repl_view *view;

    struct link_server *link;
    char link_endpoint[LINK_ENDPOINT_MAX], wal_endpoint[LINK_ENDPOINT_MAX],
        member_endpoint[LINK_ENDPOINT_MAX];
};

/* ---- repl_service.c ---- */
/* Does what the core has decided. */
void repl_turn(struct repl_service *r);
/* The envelope of a message to another node, in r->body; its body comes behind. */
void repl_pack_envelope(struct repl_service *r, uint32_t type);
/* A whole message to another node; in r->body, until the next one. */
struct slice repl_pack(struct repl_service *r, uint32_t type, const void *message);

/* ---- repl_source.c ---- */
/* Reads what an action asks for, and answers. */
void repl_source_serve(struct repl_service *r, const struct repl_action *action);
/* A reader that stands at the place, or that is to be put there. */
struct repl_open_source *repl_source_of(struct repl_service *r, struct id16 log, uint64_t position);
/* What readers of a log know of it is true no more. */
void repl_source_forget(struct repl_service *r, struct id16 log);
/* Files of segments that were trimmed are let go of. */
void repl_source_tidy(struct repl_service *r);
void repl_source_close(struct repl_service *r);

/* ---- repl_back.c ---- */
/* The newest segment in a log's folder whose header is good and that begins at or before the position. */
bool repl_back_find(const struct vfs *fs, const char *dir, struct id16 log, uint64_t position,
                    struct log_chain *begins);
/* Compares frames of a member with those here; false: those can't be read. frames: scratch. */
bool repl_back_parts(struct log_reader *reader, const struct repl_find_fork *parts, struct buf *frames,
                     struct repl_fork *fork);
/* Finds what an action asks for, and tells the core. */
void repl_back_look(struct repl_service *r, const struct repl_action *action);
/* The same; frees r->fetched. */
void repl_back_compare(struct repl_service *r, const struct repl_action *action);

/* ---- repl_digests.c ---- */
/* What is told to who asks: the count, and *next as in digests_reply. */
size_t repl_digests_list(const struct vfs *fs, const char *data_dir, const struct msg_digests *ask,
                         struct repl_digest out[REPL_DIGESTS_MAX], uint64_t *next);
/* Reads what an action asks for, and answers. */
void repl_digests_serve(struct repl_service *r, const struct repl_action *action);
/* Reads what an action asks for, and tells the core. */
void repl_digests_compare(struct repl_service *r, const struct repl_action *action);

/* ---- repl_wal.c ---- */
enum sh_error repl_wal_open(struct repl_service *r);
void repl_wal_close(struct repl_service *r);
/* Sends walsvc a request; returns its number. */
uint64_t repl_wal_ask(struct repl_service *r, uint32_t type, const void *message);
/* Takes r->fetched over. */
void repl_wal_store(struct repl_service *r, const struct repl_action *action);
void repl_wal_replicated(struct repl_service *r, const struct msg_replicated *replicated);
void repl_wal_ask_logs(struct repl_service *r);
/* Takes r->fetched over. */
void repl_wal_repair(struct repl_service *r, const struct repl_action *action);
void repl_wal_ask_damage(struct repl_service *r, const struct repl_action *action);
void repl_wal_own_log(struct repl_service *r, const struct repl_action *action);
void repl_wal_hold(struct repl_service *r, const struct repl_action *action);
void repl_wal_look(struct repl_service *r, const struct msg_look *look);

/* ---- repl_closed.c ---- */
void repl_wal_gone(struct repl_service *r, const struct msg_log_gone *gone);
/* False: the core knows another version of the register of closed logs than logs_reply tells; it is asked
 * for, and then the logs again. */
bool repl_closed_is_known(struct repl_service *r, const struct msg_logs_reply *logs);
/* An answer to one of these; false: it is not. */
bool repl_closed_on_answer(struct repl_service *r, uint64_t number, uint32_t type, struct slice body);

/* ---- repl_damage.c ---- */
/* The range that is asked for, of an answer that tells of segments from that base LSN on: in *out, all zero
 * for none. False: the answer does not tell where it is, another one from out->segment on may. *ask moves
 * behind ranges in segments that there are none of. */
bool repl_damage_find(const struct msg_wal_info_reply *reply, struct repl_ask_damage *ask, uint64_t from,
                      struct repl_damage *out);

/* ---- repl_members.c ---- */
enum sh_error repl_members_open(struct repl_service *r);
void repl_members_close(struct repl_service *r);
void repl_members_alarm(struct repl_service *r, const struct repl_action *action);
/* The members of the group besides this node, those that left left out, of a nodes_reply's `nodes`. False:
 * malformed. *count: at most REPL_MEMBERS_MAX; *too_many: there are more. */
bool repl_members_decode(struct slice nodes, const char *group, struct repl_member *out, size_t *count,
                         bool *too_many);
/* Whether they say that the node with this id has left. */
bool repl_members_has_left(struct slice nodes, struct slice id);

/* ---- repl_figures.c ---- */
/* For telemetry_on_gather. */
uint32_t repl_figures_gather(void *service, msgpack_packer *pk);
/* Once a second. */
void repl_figures_look(struct repl_service *r);

/* ---- repl_link.c ---- */
enum service_exit repl_link_open(struct repl_service *r);
void repl_link_close(struct repl_service *r);

#endif
