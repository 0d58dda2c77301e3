/* Gives or takes the permit to write, as membersvc would.
 *
 * link_permit ENDPOINT allow
 * link_permit ENDPOINT refuse REASON
 *
 * Prints "ok DURABLE_LSN", or the error (see asker.h). Exit 1 when there is no answer. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "asker.h"

static bool print(uint32_t type, struct slice body)
{
    struct msg_write_permit_reply reply;
    if (type != MSG_write_permit_reply || msg_decode(type, body, &reply) != SH_OK)
        return false;
    printf("ok %" PRIu64 "\n", reply.durable_lsn);
    return true;
}

int main(int argc, char **argv)
{
    struct asker asker;
    if (argc < 3 || !asker_open(&asker, argv[1], print))
        return 2;
    struct msg_write_permit m = {.allowed = strcmp(argv[2], "allow") == 0,
                                 .reason = slice_str(argc > 3 ? argv[3] : "")};
    asker_send(&asker, MSG_write_permit, &m);
    return asker_end(&asker);
}
