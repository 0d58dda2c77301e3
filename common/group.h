/* Replication groups: which of them a key or a stream belongs to (docs/groups.md). Pure.
 *
 * The groups are those that the topology file names; they are part of the cluster's id, so that all nodes and
 * clients of a cluster have the same. The group of a name is found by rendezvous hashing (D. Thaler, C.
 * Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM Transactions on Networking 6(1),
 * 1998): each group gets a number from a hash of itself and the name, and the highest wins. So names spread
 * evenly, and with one group more only those move that it wins. The hash is XXH3, 64 bits, of the name, with
 * the seed XXH3(the kind's byte, the group's name). */
#ifndef COMMON_GROUP_H
#define COMMON_GROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "frame.h"

struct config;

enum { GROUPS_MAX = 256, GROUP_NAME_MAX = 64 };

/* A key and a stream of one name have nothing to do with each other. */
enum group_kind { GROUP_KEY = 0, GROUP_STREAM = 1, GROUP_KINDS };

struct group {
    char name[GROUP_NAME_MAX + 1];
    uint64_t seeds[GROUP_KINDS];
};

/* In the order of their names, each once. */
struct group_set {
    struct group *all;
    size_t count;
    size_t self; /* the node's own; GROUPS_MAX: none */
};

/* Of the topology, at most GROUPS_MAX groups (config_check sees to that); freed with group_set_free. */
void group_set_of_config(struct group_set *set, const struct config *config);
/* Of a msgpack array of names, in any order. False: it is none, or empty, or a name is; *set is freed. */
bool group_set_decode(struct group_set *set, struct slice names);
/* Appends that array. */
void group_set_encode(const struct group_set *set, struct buf *out);
/* Zeros are none. */
void group_set_free(struct group_set *set);
/* Its index; GROUPS_MAX: there is none. */
size_t group_find(const struct group_set *set, struct slice name);

/* The group that a name belongs to, as an index. With one group nothing is computed. */
size_t group_of(const struct group_set *set, enum group_kind kind, struct slice name);
/* What decides of an entry, if anything does: the key of a put, delete or add, the stream of an event. The
 * empty stream, and kinds that say nothing of a key or stream, belong to no group: they are appended
 * anywhere. */
bool group_name_of_entry(const struct entry *entry, enum group_kind *kind, struct slice *name);

/* What the entries of one frame come to. */
struct group_verdict {
    size_t group;  /* GROUPS_MAX: none of them belongs to one */
    bool is_split; /* two of them belong to different groups; then: */
    enum group_kind kinds[2];
    struct slice names[2];
    size_t groups[2];
};
/* Takes one more entry in; verdict begins as group_verdict_begin gives it. Names are borrowed. */
struct group_verdict group_verdict_begin(void);
void group_verdict_add(struct group_verdict *verdict, const struct group_set *set, const struct entry *entry);
/* Of a body that entries_check has found good. */
struct group_verdict group_of_entries(const struct group_set *set, struct slice body);

enum { GROUP_TEXT_MAX = 512 };
/* "key `x`", or how long it is, when it is no short printable text. */
void group_name_text(enum group_kind kind, struct slice name, char *out, size_t size);
/* "the keys belong to two groups: ...". */
void group_split_text(const struct group_verdict *verdict, const struct group_set *set,
                      char out[GROUP_TEXT_MAX]);

#endif
