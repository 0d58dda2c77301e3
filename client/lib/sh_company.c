/* Who is expected back. Nothing here is fatal. */
#include "sh_company.h"

#include "clock.h"

#define WAIT_MOST_NS ((int64_t)NS_PER_MS / 2)

bool shc_company_waits(const struct shc_company *company, int64_t now_ns)
{
    return company->expected > 0 && now_ns < company->due_ns;
}

void shc_company_expect(struct shc_company *company, uint32_t callers, int64_t took_ns, int64_t now_ns)
{
    int64_t wait_ns = took_ns < WAIT_MOST_NS ? took_ns : WAIT_MOST_NS;
    if (callers == 0)
        return;
    if (!shc_company_waits(company, now_ns))
        company->expected = 0; /* those are given up */
    company->expected += callers;
    company->due_ns = now_ns + wait_ns;
}

bool shc_company_came(struct shc_company *company, int64_t now_ns)
{
    return shc_company_waits(company, now_ns) && --company->expected == 0;
}
