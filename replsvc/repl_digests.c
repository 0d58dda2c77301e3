/* Digests of sealed segments, as their indexes have them: for others who ask, and to be compared with
 * theirs. Nothing here is fatal: an index that cannot be read is left out. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "repl_shell.h"
#include "segment_index.h"

enum { DIGEST_PARTS = 3 };

/* The lowest base LSNs of indexes beyond one, ascending; one more than are told, to know whether there are
 * more. */
struct bases {
    uint64_t after, all[REPL_DIGESTS_MAX + 1];
    size_t count, most;
};

static bool add_base(void *arg, const char *name)
{
    struct bases *bases = arg;
    uint64_t base;
    if (!segment_index_name_parse(name, &base) || base <= bases->after)
        return true;
    if (bases->count == bases->most && base >= bases->all[bases->count - 1])
        return true;
    size_t at = bases->count < bases->most ? bases->count++ : bases->count - 1;
    for (; at > 0 && bases->all[at - 1] > base; at--)
        bases->all[at] = bases->all[at - 1];
    bases->all[at] = base;
    return true;
}

static void folder_of(const char *data_dir, struct id16 log, char path[PATH_MAX])
{
    char uuid[ID_TEXT];
    id16_format(log, uuid);
    snprintf(path, PATH_MAX, "%s/log/%s", data_dir, uuid);
}

static bool read_digest(const struct vfs *fs, const char *dir, struct id16 log, uint64_t base,
                        struct repl_digest *out)
{
    struct segment_index index;
    *out = (struct repl_digest){.base_lsn = base};
    if (segment_index_read(fs, dir, log, base, &index) != SH_OK)
        return false;
    out->bytes = index.end;
    out->digest = index.digest;
    segment_index_free(&index);
    return true;
}

size_t repl_digests_list(const struct vfs *fs, const char *data_dir, const struct msg_digests *ask,
                         struct repl_digest out[REPL_DIGESTS_MAX], uint64_t *next)
{
    char dir[PATH_MAX];
    size_t most = ask->most < REPL_DIGESTS_MAX ? (size_t)ask->most : REPL_DIGESTS_MAX, count = 0;
    struct bases bases = {.after = ask->after, .most = most + 1};
    folder_of(data_dir, ask->log, dir);
    *next = 0;
    if (fs->list(fs, dir, add_base, &bases) != 0)
        return 0;
    for (size_t i = 0; i < bases.count && i < most; i++)
        count += read_digest(fs, dir, ask->log, bases.all[i], &out[count]);
    if (bases.count > most && count > 0)
        *next = out[count - 1].base_lsn;
    return count;
}

static void pack_digests(const struct repl_digest *digests, size_t count, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++) {
        msgpack_pack_array(&pk, DIGEST_PARTS);
        msgpack_pack_uint64(&pk, digests[i].base_lsn);
        msgpack_pack_uint64(&pk, digests[i].bytes);
        msgpack_pack_bin(&pk, sizeof digests[i].digest.bytes);
        msgpack_pack_bin_body(&pk, digests[i].digest.bytes, sizeof digests[i].digest.bytes);
    }
}

void repl_digests_serve(struct repl_service *r, const struct repl_action *action)
{
    struct repl_digest digests[REPL_DIGESTS_MAX];
    struct msg_digests_reply reply = {.log = action->digests.log};
    size_t count =
        repl_digests_list(vfs_posix(), r->service->config->data_dir, &action->digests, digests, &reply.next);
    r->frames.len = 0;
    pack_digests(digests, count, &r->frames);
    reply.segments = buf_slice(&r->frames);
    repl_server_answer(r->server, action->token, repl_pack(r, MSG_digests_reply, &reply), (struct slice){0});
}

void repl_digests_compare(struct repl_service *r, const struct repl_action *action)
{
    const struct repl_compare_digests *compare = &action->compare;
    struct repl_digest own[REPL_DIGESTS_MAX];
    char dir[PATH_MAX];
    folder_of(r->service->config->data_dir, compare->log, dir);
    for (size_t i = 0; i < compare->count; i++)
        read_digest(vfs_posix(), dir, compare->log, compare->theirs[i].base_lsn, &own[i]);
    repl_core_digests(r->core, clock_mono_ns(), own, compare->count);
}
