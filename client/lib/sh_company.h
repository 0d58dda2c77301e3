/* Whether an open batch waits for company: callers who have just got the answers of one batch and are about
 * to append again. To send at once what the first of them brings would leave the others behind, waiting for a
 * frame of one entry. Pure; under the queue's lock. */
#ifndef CLIENT_SH_COMPANY_H
#define CLIENT_SH_COMPANY_H

#include <stdbool.h>
#include <stdint.h>

/* All zero: nobody is expected. */
struct shc_company {
    uint32_t expected; /* callers who have not come back yet */
    int64_t due_ns;    /* when they are no longer waited for */
};

/* So many callers get their answers now, of a batch that was under way for took_ns. They are waited for as
 * long again, and 0.5 ms at most. */
void shc_company_expect(struct shc_company *company, uint32_t callers, int64_t took_ns, int64_t now_ns);
/* A caller has come: whether he is the last who was waited for. */
bool shc_company_came(struct shc_company *company, int64_t now_ns);
/* Whether others are still waited for. */
bool shc_company_waits(const struct shc_company *company, int64_t now_ns);

#endif
