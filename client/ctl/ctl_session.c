/* What several commands remember of each other: --session FILE. */
#include "cmd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vfs.h"

enum { READ_BYTES = 1 << 16 };

bool ctl_read_all(FILE *in, struct buf *out)
{
    size_t got;
    do {
        got = fread(buf_reserve(out, READ_BYTES), 1, READ_BYTES, in);
        out->len += got;
    } while (got > 0);
    return ferror(in) == 0;
}

static int take_file(struct ctl_session *run)
{
    struct buf text = {0};
    FILE *in = fopen(run->file, "re");
    if (in == NULL && errno == ENOENT)
        return CTL_DONE; /* a new session */
    if (in == NULL)
        return ctl_fail_path(run->ctl, run->file, errno);
    bool good = ctl_read_all(in, &text);
    fclose(in);
    int code = CTL_DONE;
    if (!good)
        code = ctl_fail_path(run->ctl, run->file, EIO);
    else if (memchr(buf_cstr(&text), 0, text.len) != NULL ||
             sh_session_take(run->session, buf_cstr(&text)) != SH_OK)
        code = ctl_fail_text(run->ctl, run->file, SH_BAD_REQUEST,
                             "not the file of a session: a line for each log, its uuid and an LSN");
    buf_free(&text);
    return code;
}

/* Replaces it: a kill leaves the old one or the new one. */
static int keep_file(struct ctl_session *run)
{
    char dir[PATH_MAX];
    if (run->session == NULL)
        return CTL_DONE;
    char *text = sh_session_text(run->session);
    vfs_parent(run->file, dir);
    const char *slash = strrchr(run->file, '/');
    int result = vfs_replace_file(vfs_posix(), slash != NULL ? dir : ".",
                                  slash != NULL ? slash + 1 : run->file, text, strlen(text));
    free(text);
    return result < 0 ? ctl_fail_path(run->ctl, run->file, -result) : CTL_DONE;
}

int ctl_session_open(struct ctl *ctl, struct ctl_session *run)
{
    int code = CTL_DONE;
    *run = (struct ctl_session){.ctl = ctl, .file = ctl_word(ctl, "session", NULL)};
    if (run->file != NULL) {
        run->session = sh_session_new();
        code = take_file(run);
    }
    if (code == CTL_DONE)
        code = ctl_open(ctl, &run->client);
    if (code != CTL_DONE)
        sh_session_free(run->session);
    return code;
}

int ctl_session_close(struct ctl_session *run, int code)
{
    int kept = keep_file(run);
    sh_close(run->client);
    sh_session_free(run->session);
    return code != CTL_DONE ? code : kept;
}
