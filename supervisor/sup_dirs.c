/* Directories, locks, sockets. Nothing is fatal here; the caller ends the process with the code it gets. */
#include "sup_dirs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "config.h"
#include "log.h"

bool sup_make_dir(const char *path)
{
    char part[CONFIG_PATH_MAX + 32];
    snprintf(part, sizeof part, "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(part, 0755); /* what went wrong shows at the last one */
        *slash = '/';
    }
    struct stat info;
    if ((mkdir(part, 0700) != 0 && errno != EEXIST) || stat(part, &info) != 0) {
        log_error("a directory cannot be made", log_text("dir", path), log_text("error", strerror(errno)));
        return false;
    }
    if (!S_ISDIR(info.st_mode))
        log_error("this is no directory", log_text("dir", path));
    return S_ISDIR(info.st_mode);
}

static void tell_holder(const char *dir, int fd)
{
    char pid[32] = "";
    ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
    pid[n > 0 ? strcspn(pid, "\n") : 0] = 0;
    log_error("another shanghaid uses this directory", log_text("dir", dir), log_text("holder_pid", pid));
}

enum service_exit sup_lock_dir(const char *dir, int *fd)
{
    char path[CONFIG_PATH_MAX + 32];
    if (!sup_make_dir(dir))
        return EXIT_FAULT;
    snprintf(path, sizeof path, "%s/lock", dir);
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*fd >= 0 && flock(*fd, LOCK_EX | LOCK_NB) == 0) {
        if (ftruncate(*fd, 0) == 0)
            dprintf(*fd, "%d\n", (int)getpid());
        return EXIT_DONE;
    }
    if (*fd >= 0 && errno == EWOULDBLOCK) {
        tell_holder(dir, *fd);
        close(*fd);
        return EXIT_IN_USE;
    }
    log_error("a directory cannot be locked", log_text("file", path), log_text("error", strerror(errno)));
    if (*fd >= 0)
        close(*fd);
    return EXIT_FAULT;
}

int sup_bind(int type, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    unlink(path);
    mode_t before = umask(0177);
    int failed = bind(fd, (struct sockaddr *)&address, sizeof address), error = errno;
    umask(before);
    if (failed == 0)
        return fd;
    close(fd);
    errno = error;
    return -1;
}
