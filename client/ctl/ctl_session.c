/* Version vectors in files: of a session (--session FILE), of a reader of a stream. */
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

static int take_file(const struct ctl *ctl, const char *option, const char *file, struct sh_session *session)
{
    struct buf text = {0};
    char why[128];
    FILE *in = fopen(file, "re");
    if (in == NULL && errno == ENOENT)
        return CTL_DONE; /* a new one */
    if (in == NULL)
        return ctl_fail_path(ctl, file, errno);
    bool good = ctl_read_all(in, &text);
    fclose(in);
    int code = CTL_DONE;
    snprintf(why, sizeof why, "not the file of a %s: a line for each log, its uuid and an LSN", option);
    if (!good)
        code = ctl_fail_path(ctl, file, EIO);
    else if (memchr(buf_cstr(&text), 0, text.len) != NULL ||
             sh_session_take(session, buf_cstr(&text)) != SH_OK)
        code = ctl_fail_text(ctl, file, SH_BAD_REQUEST, why);
    buf_free(&text);
    return code;
}

int ctl_session_take(const struct ctl *ctl, const char *option, struct sh_session **session)
{
    const char *file = ctl_word(ctl, option, NULL);
    *session = NULL;
    if (file == NULL)
        return CTL_DONE;
    *session = sh_session_new();
    int code = take_file(ctl, option, file, *session);
    if (code != CTL_DONE) {
        sh_session_free(*session);
        *session = NULL;
    }
    return code;
}

int ctl_session_keep(const struct ctl *ctl, const char *option, const struct sh_session *session)
{
    const char *file = ctl_word(ctl, option, NULL);
    char dir[PATH_MAX];
    if (session == NULL || file == NULL)
        return CTL_DONE;
    char *text = sh_session_text(session);
    vfs_parent(file, dir);
    const char *slash = strrchr(file, '/');
    int result = vfs_replace_file(vfs_posix(), slash != NULL ? dir : ".", slash != NULL ? slash + 1 : file,
                                  text, strlen(text));
    free(text);
    return result < 0 ? ctl_fail_path(ctl, file, -result) : CTL_DONE;
}

int ctl_session_open(struct ctl *ctl, struct ctl_session *run)
{
    *run = (struct ctl_session){.ctl = ctl};
    int code = ctl_session_take(ctl, "session", &run->session);
    if (code == CTL_DONE)
        code = ctl_open(ctl, &run->client);
    if (code != CTL_DONE)
        sh_session_free(run->session);
    return code;
}

int ctl_session_close(struct ctl_session *run, int code)
{
    int kept = ctl_session_keep(run->ctl, "session", run->session);
    sh_close(run->client);
    sh_session_free(run->session);
    return code != CTL_DONE ? code : kept;
}
