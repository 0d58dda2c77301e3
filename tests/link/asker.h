/* A client of a daemon's link for test programs: sends messages, and prints what is answered. */
#ifndef TESTS_ASKER_H
#define TESTS_ASKER_H

#include "link.h"

struct asker {
    struct loop *loop;
    struct link_client *client;
    unsigned sent, answers;
    bool (*print)(uint32_t type, struct slice body); /* false: it isn't the answer that was expected */
};

/* False: not an endpoint. print: prints "ok ..."; errors are printed here, as NAME EXPECTED TEXT. */
bool asker_open(struct asker *asker, const char *endpoint, bool (*print)(uint32_t type, struct slice body));
void asker_send(struct asker *asker, uint32_t type, const void *message);
/* Waits for all answers, and closes; the exit code of the program. */
int asker_end(struct asker *asker);

#endif
