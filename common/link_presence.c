/* A connection that the listener accepts and finds closed would end it for good (nng #1518), so nothing may
 * connect to look. Connecting a socket of another type answers the question and reaches no listener: the
 * kernel finds who is bound to the file first, ECONNREFUSED when that process is gone, and only then that the
 * types differ, EPROTOTYPE. */
#include "link_presence.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char scheme[] = "ipc://";

bool link_is_ipc(const char *url)
{
    return strncmp(url, scheme, sizeof scheme - 1) == 0;
}

bool link_socket_is_bound(const char *url)
{
    const char *path = url + sizeof scheme - 1;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (!link_is_ipc(url) || len >= sizeof to.sun_path)
        return false;
    memcpy(to.sun_path, path, len);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool bound = connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno == EPROTOTYPE;
    close(fd);
    return bound;
}
