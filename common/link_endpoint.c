/* From a link's endpoint to the URLs of its two sockets. A malformed endpoint is the caller's to report. */
#include "link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SOCKET_NAME_MAX = 107, PORT_MAX = 65535 };

static enum sh_error ipc_urls(const char *endpoint, char in[LINK_ENDPOINT_MAX], char out[LINK_ENDPOINT_MAX])
{
    const char *path = endpoint + strlen("ipc://");
    if (path[0] != '/' || path[1] == 0 || strlen(path) + strlen(".out") > SOCKET_NAME_MAX)
        return SH_BAD_REQUEST;
    snprintf(in, LINK_ENDPOINT_MAX, "%s.in", endpoint);
    snprintf(out, LINK_ENDPOINT_MAX, "%s.out", endpoint);
    return SH_OK;
}

static enum sh_error tcp_urls(const char *endpoint, char in[LINK_ENDPOINT_MAX], char out[LINK_ENDPOINT_MAX])
{
    const char *host = endpoint + strlen("tcp://");
    const char *colon = strrchr(host, ':');
    if (colon == NULL || colon == host || colon[1] < '0' || colon[1] > '9')
        return SH_BAD_REQUEST;
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (*end != 0 || port == 0 || port >= PORT_MAX)
        return SH_BAD_REQUEST;
    snprintf(in, LINK_ENDPOINT_MAX, "%s", endpoint);
    snprintf(out, LINK_ENDPOINT_MAX, "%.*s:%lu", (int)(colon - endpoint), endpoint, port + 1);
    return SH_OK;
}

enum sh_error link_endpoint_urls(const char *endpoint, char in[LINK_ENDPOINT_MAX],
                                 char out[LINK_ENDPOINT_MAX])
{
    if (strlen(endpoint) + strlen(".out") >= LINK_ENDPOINT_MAX)
        return SH_BAD_REQUEST;
    if (strncmp(endpoint, "ipc://", strlen("ipc://")) == 0)
        return ipc_urls(endpoint, in, out);
    if (strncmp(endpoint, "tcp://", strlen("tcp://")) == 0)
        return tcp_urls(endpoint, in, out);
    return SH_BAD_REQUEST;
}
