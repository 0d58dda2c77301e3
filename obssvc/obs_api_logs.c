/* /api/v1/logs: its arguments. */
#include <stdlib.h>
#include <string.h>

#include "obs_api.h"
#include "obs_logs.h"

enum { LINES = 200 };

/* False (answered): it is none. */
static bool read_correlation(const struct obs_http_request *request, struct obs_http_response *response,
                             uint64_t *out)
{
    const char *text = obs_http_argument(request, "correlation_id");
    *out = 0;
    if (text == NULL)
        return true;
    size_t len = strlen(text);
    bool good = len >= 1 && len <= 16 && strspn(text, "0123456789abcdefABCDEF") == len;
    *out = good ? strtoull(text, NULL, 16) : 0;
    if (*out == 0)
        obs_api_fail_argument(response, "correlation_id",
                              "is not 1 to 16 hexadecimal digits, of which one is not 0");
    return *out != 0;
}

static bool read_level(const struct obs_http_request *request, struct obs_http_response *response,
                       enum log_level *out)
{
    const char *text = obs_http_argument(request, "level");
    *out = LOG_DEBUG;
    if (text == NULL)
        return true;
    for (; *out <= LOG_ERROR; (*out)++)
        if (strcmp(text, log_level_name(*out)) == 0)
            return true;
    obs_api_fail_argument(response, "level", "must be debug, info, warn or error");
    return false;
}

/* NULL: all. */
static bool read_service(const struct config *config, const struct obs_http_request *request,
                         struct obs_http_response *response, const char **out)
{
    *out = obs_http_argument(request, "service");
    if (*out == NULL)
        return true;
    for (size_t i = 0; i < config->tree_count; i++)
        if (config->tree[i].kind == TREE_SERVICE && strcmp(config->tree[i].name, *out) == 0)
            return true;
    obs_api_fail(response, 404, "not_found", "there is no service of that name in the tree",
                 (struct slice){0});
    return false;
}

void obs_api_logs(struct obs *o, const struct obs_http_request *request, struct obs_http_response *response)
{
    struct json_writer j = {0};
    struct obs_logs_query query;
    uint64_t most;
    if (!read_correlation(request, response, &query.correlation) ||
        !read_level(request, response, &query.least) ||
        !read_service(o->service->config, request, response, &query.service) ||
        !obs_api_number(request, response, "most", OBS_LINES_MAX, LINES, &most))
        return;
    query.most = most;
    json_open(&j, NULL, '{');
    obs_logs_read(o->service->config, &query, &j, "lines");
    json_close(&j, '}');
    obs_api_answer(response, &j);
}
