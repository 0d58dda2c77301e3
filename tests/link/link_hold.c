/* A holder for tests: sends `hold` messages to walsvc's link, as a member or a reader would.
 *
 * link_hold ENDPOINT KIND NAME LSN TTL_MS [COUNT]   sets a hold; with COUNT so many, NAME-1, NAME-2, ...
 * link_hold ENDPOINT KIND NAME remove               ends it
 *
 * Prints for each "ok FIRST_LSN", or the error (see asker.h). Exit 1 when there is no answer. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "asker.h"

static bool print(uint32_t type, struct slice body)
{
    struct msg_hold_reply reply;
    if (type != MSG_hold_reply || msg_decode(type, body, &reply) != SH_OK)
        return false;
    printf("ok %" PRIu64 "\n", reply.first_lsn);
    return true;
}

static void send_hold(struct asker *asker, const char *name, char **argv)
{
    struct msg_hold m = {.kind = strtoull(argv[2], NULL, 10), .name = slice_str(name)};
    m.remove = strcmp(argv[4], "remove") == 0;
    if (!m.remove) {
        m.lsn = strtoull(argv[4], NULL, 10);
        m.ttl_ms = strtoull(argv[5], NULL, 10);
    }
    asker_send(asker, MSG_hold, &m);
}

int main(int argc, char **argv)
{
    struct asker asker;
    if (argc < 5 || (argc < 6 && strcmp(argv[4], "remove") != 0) || !asker_open(&asker, argv[1], print))
        return 2;
    unsigned count = argc > 6 ? (unsigned)strtoul(argv[6], NULL, 10) : 1;
    for (unsigned i = 1; i <= count; i++) {
        char name[128];
        if (argc > 6)
            snprintf(name, sizeof name, "%s-%u", argv[3], i);
        else
            snprintf(name, sizeof name, "%s", argv[3]);
        send_hold(&asker, name, argv);
    }
    return asker_end(&asker);
}
