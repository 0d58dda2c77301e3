/* Inside of membersvc's core: what goes out, messages and notices. */
#ifndef MEMBER_WIRE_H
#define MEMBER_WIRE_H

#include "member_core.h"

struct member;

/* Automatic answers: each at most once in a probe interval to one member, `refused` once in a heartbeat
 * interval. So answers can't answer each other without end. */
enum answer { ANSWER_RECORD, ANSWER_HEARTBEAT, ANSWER_SUMMARY, ANSWER_REFUSED, ANSWERS };

/* ---- member_out.c ---- */
struct address {
    struct slice id, host;
    uint16_t port; /* the base port */
    bool fresh;
};
struct address address_of(const struct member_core *core, const struct member *m);
void out_send(struct member_core *core, const struct address *to, struct slice message);
/* key: "" for what is always said; else said once a minute for this key and id. */
__attribute__((format(printf, 6, 7))) void out_notice(struct member_core *core, int level, const char *key,
                                                      struct slice id, const char *text, const char *format,
                                                      ...);

/* ---- member_wire.c: messages that go out ---- */
/* Starts a message in core->message; the body follows. */
void wire_begin(struct member_core *core, uint32_t type);
uint64_t wire_wall_ms(const struct member_core *core);
struct slice wire_heartbeat(struct member_core *core, bool answer, bool news);
void wire_send_heartbeat(struct member_core *core, const struct address *to, bool answer, bool news);
void wire_send_record(struct member_core *core, const struct address *to, const struct member *about);
void wire_send_refused(struct member_core *core, const struct member *to, enum sh_error code,
                       struct id16 session, const char *text);
struct slice wire_marks(struct member_core *core);
/* The same records, or ids, in as many messages as they need. */
struct chunks {
    struct member_core *core;
    struct address to;
    bool reply;
    struct buf members, want;
    uint32_t member_count, want_count;
};
void chunks_add_member(struct chunks *c, struct slice record);
void chunks_add_want(struct chunks *c, struct slice id);
/* Sends the rest, and frees it. */
void chunks_end(struct chunks *c);
/* Whether an answer of this kind may go to m now; then it counts as given. */
bool wire_may_answer(struct member_core *core, struct member *m, enum answer kind);

#endif
