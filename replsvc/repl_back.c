/* Reading what is here of a log, to find where a member's frames part from it. Nothing here is fatal: what
 * cannot be read is told as that. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "log_reader_copy.h"
#include "repl_shell.h"

static void folder_of(const struct repl_service *r, struct id16 log, char path[PATH_MAX])
{
    char uuid[ID_TEXT];
    id16_format(log, uuid);
    snprintf(path, PATH_MAX, "%s/log/%s", r->service->config->data_dir, uuid);
}

/* A header that is damaged is passed over. */
bool repl_back_find(const struct vfs *fs, const char *dir, struct id16 log, uint64_t position,
                    struct log_chain *begins)
{
    struct segment_header header;
    uint64_t *bases = NULL, file_bytes;
    size_t count = 0;
    int fd;
    bool found = false;
    if (segment_list(fs, dir, &bases, &count) < 0)
        return false;
    for (size_t i = count; i-- > 0 && !found;) {
        if (segment_open(fs, dir, log, bases[i], O_RDONLY, &fd, &header, &file_bytes) != SH_OK)
            continue;
        fs->close(fs, fd);
        found = header.position <= position;
    }
    free(bases);
    if (found)
        *begins = (struct log_chain){header.base_lsn, header.previous_checksum, header.position};
    return found;
}

void repl_back_look(struct repl_service *r, const struct repl_action *action)
{
    char dir[PATH_MAX];
    struct log_chain begins;
    folder_of(r, action->back.log, dir);
    bool found = repl_back_find(vfs_posix(), dir, action->back.log, action->back.position, &begins);
    repl_core_begins(r->core, clock_mono_ns(), action->serial, found ? &begins : NULL);
}

/* So many bytes, or one frame at least, from that place on; none at the end. False: they can't be read. */
static bool read_own(struct log_reader *reader, struct log_copy *copy, struct log_chain from, size_t most,
                     struct buf *frames)
{
    copy->from = from;
    copy->max_bytes = most;
    frames->len = 0;
    return log_reader_copy(reader, copy, frames) == SH_OK &&
           (copy->state == LOG_COPY_FRAMES || copy->state == LOG_COPY_END);
}

/* The first of the own frames that are not the same may be longer than all that the member has sent. */
bool repl_back_parts(struct log_reader *reader, const struct repl_find_fork *parts, struct buf *frames,
                     struct repl_fork *fork)
{
    struct log_copy copy = {.durable_end = parts->durable_end, .max_entries = UINT64_MAX};
    *fork = (struct repl_fork){.at = parts->from};
    if (!read_own(reader, &copy, parts->from, parts->bytes.len, frames))
        return false;
    repl_fork_compare(parts->bytes, buf_slice(frames), fork);
    if (fork->all_same)
        return true;
    if (!read_own(reader, &copy, fork->at, 1, frames))
        return false;
    fork->has_own = frames->len > 0;
    fork->own = repl_fork_first(buf_slice(frames));
    return true;
}

void repl_back_compare(struct repl_service *r, const struct repl_action *action)
{
    struct repl_fork fork;
    struct repl_fetched *fetched = r->fetched;
    struct repl_open_source *source = repl_source_of(r, action->parts.log, action->parts.from.position);
    r->fetched = NULL;
    bool good = repl_back_parts(source->reader, &action->parts, &r->frames, &fork);
    source->used_ns = loop_now_ns(r->service->loop);
    source->position = action->parts.from.position;
    repl_core_parted(r->core, clock_mono_ns(), action->serial, good ? &fork : NULL);
    repl_fetched_free(fetched);
}
