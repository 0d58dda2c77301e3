/* Seeds: the nodes of the topology file, which are tried as long as the process runs. */
#include <stdlib.h>
#include <string.h>

#include "member_parts.h"

enum { SEED_PARTS = 20 };

static const char *keep(char **at, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *place = memcpy(*at, text, bytes);
    *at += bytes;
    return place;
}

/* Texts as long as they are: a thousand nodes are in the file of each of a thousand. */
void seeds_copy(struct member_core *core, const struct config_node *nodes, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += strlen(nodes[i].id) + strlen(nodes[i].host) + strlen(nodes[i].group) + 3;
    char *at = core->seed_texts = xmalloc(bytes);
    core->seeds = xcalloc(count, sizeof *core->seeds);
    core->seed_count = count;
    for (size_t i = 0; i < count; i++) {
        struct seed *s = &core->seeds[i];
        bool same = i > 0 && strcmp(s[-1].group, nodes[i].group) == 0;
        *s = (struct seed){.id = keep(&at, nodes[i].id),
                           .host = keep(&at, nodes[i].host),
                           .group = same ? s[-1].group : keep(&at, nodes[i].group),
                           .port = nodes[i].port,
                           .admin_port = nodes[i].admin_port};
    }
    core->seed_next = core_random(core, count);
}

void seeds_free(struct member_core *core)
{
    free(core->seed_texts);
    free(core->seeds);
}

static bool is_live_address(const struct member_core *core, const struct seed *seed)
{
    const struct member *m = table_find(core, slice_str(seed->id));
    return core->founded && m != NULL && m->on_ring && m->port == seed->port &&
           slice_is(table_host(m), seed->host);
}

static void try_seed(struct member_core *core, const struct seed *seed)
{
    const struct member *m = table_find(core, slice_str(seed->id));
    bool is_its = m != NULL && m->port == seed->port && slice_is(table_host(m), seed->host);
    struct address to = {.id = slice_str(is_its ? seed->id : ""),
                         .host = slice_str(seed->host),
                         .port = seed->port,
                         .fresh = true};
    wire_send_heartbeat(core, &to, true, false);
}

/* Whoever is out, or hears nobody, tries those that it knew, too: its seeds may be gone. So it does with
 * those that left, as far as it knows: they may have joined again. */
static void try_known(struct member_core *core)
{
    for (unsigned i = 0; i < TRIES && core->count > 0; i++) {
        const struct member *m = core->by_id[core_random(core, core->count)];
        struct address to = address_of(core, m);
        if (m != core->self)
            wire_send_heartbeat(core, &to, true, false);
    }
}

/* A node that isn't founded has to hear from more than half of the list: soon in a large one, too. */
static size_t tries(const struct member_core *core)
{
    if (core->founded)
        return 1;
    size_t part = found_is_hopeful(core) ? core->seed_count / SEED_PARTS : 0;
    return part > TRIES ? part : TRIES;
}

void seeds_try(struct member_core *core)
{
    size_t most = tries(core);
    bool is_out = core->founded && !core_is_member(core);
    if (is_out || core->alone)
        try_known(core);
    for (size_t i = 0; i < core->seed_count && most > 0; i++) {
        const struct seed *seed = &core->seeds[core->seed_next++ % core->seed_count];
        if (strcmp(seed->id, core->id) == 0 || (!is_out && is_live_address(core, seed)))
            continue;
        try_seed(core, seed);
        most--;
    }
}
