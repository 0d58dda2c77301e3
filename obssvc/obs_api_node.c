/* What the node and its supervisor said when they were asked last. */
#include <string.h>

#include "clock.h"
#include "obs_api.h"

static const struct {
    const char *who, *message;
} away[OBS_KEPT] = {
    [OBS_STATUS] = {"querysvc", "querysvc does not answer"},
    [OBS_NODES] = {"membersvc", "querysvc or membersvc does not answer"},
    [OBS_REPLICAS] = {"replsvc", "querysvc or replsvc does not answer"},
    [OBS_TREE] = {"shanghaid", "the supervisor does not answer"},
    [OBS_OBITUARIES] = {"shanghaid", "the supervisor does not answer"},
};

/* False (answered): it is not known. */
static bool read_kept(struct obs *o, enum obs_kept kept, struct obs_http_response *response, struct buf *out)
{
    struct json_writer j = {0};
    int64_t age_ms;
    if (obs_poll_read(o->poll, kept, out, &age_ms)) {
        response->age_ms = age_ms;
        return true;
    }
    json_open(&j, NULL, '{');
    json_text(&j, "service", away[kept].who);
    json_close(&j, '}');
    obs_api_fail(response, 503, "unavailable", away[kept].message, buf_slice(&j.out));
    buf_free(&j.out);
    return false;
}

void obs_api_nodes(struct obs *o, const struct obs_http_request *request, struct obs_http_response *response)
{
    (void)request;
    read_kept(o, OBS_NODES, response, &response->body);
}

void obs_api_replicas(struct obs *o, const struct obs_http_request *request,
                      struct obs_http_response *response)
{
    (void)request;
    read_kept(o, OBS_REPLICAS, response, &response->body);
}

void obs_api_status(struct obs *o, const struct obs_http_request *request, struct obs_http_response *response)
{
    struct json_writer j = {0};
    struct buf fields = {0};
    (void)request;
    if (read_kept(o, OBS_STATUS, response, &fields)) {
        json_open(&j, NULL, '{');
        json_int(&j, "now_ms", clock_real_ns() / NS_PER_MS);
        json_int(&j, "obssvc_since_ms", o->since_ms);
        json_text(&j, "group", o->service->config->self->group);
        json_raw(&j, NULL, buf_slice(&fields));
        json_close(&j, '}');
        obs_api_answer(response, &j);
    }
    buf_free(&fields);
}

void obs_api_services(struct obs *o, const struct obs_http_request *request,
                      struct obs_http_response *response)
{
    struct json_writer j = {0};
    struct buf tree = {0}, obituaries = {0};
    (void)request;
    if (read_kept(o, OBS_OBITUARIES, response, &obituaries) && read_kept(o, OBS_TREE, response, &tree)) {
        json_open(&j, NULL, '{');
        json_raw(&j, "services", buf_slice(&tree));
        json_raw(&j, "obituaries", buf_slice(&obituaries));
        json_close(&j, '}');
        obs_api_answer(response, &j);
    }
    buf_free(&tree);
    buf_free(&obituaries);
}

/* ---------------------------------------------------------------- readiness */

enum { CHECKS = 3 };

struct check {
    const char *name;
    const char *problem; /* NULL: it is good */
};

static const char *problem_of_writes(const struct obs_condition *c)
{
    static const char *const texts[] = {NULL, "the disk is full", "the node is read-only",
                                        "walsvc does not answer"};
    return c->has_status ? texts[c->writes] : "not known";
}

static const char *problem_of_state(const struct obs_condition *c)
{
    if (!c->has_nodes)
        return "membersvc does not answer";
    return c->state != SH_STATE_MEMBER ? sh_node_state_name(c->state) : NULL;
}

/* An object of all checks, or of those only that are not good. */
static bool write_checks(struct json_writer *j, const char *key, const struct check *checks, bool all)
{
    bool good = true;
    json_open(j, key, '{');
    for (int i = 0; i < CHECKS; i++) {
        good = good && checks[i].problem == NULL;
        if (all || checks[i].problem != NULL)
            json_text(j, checks[i].name, checks[i].problem != NULL ? checks[i].problem : "ok");
    }
    json_close(j, '}');
    return good;
}

void obs_api_ready(struct obs *o, const struct obs_http_request *request, struct obs_http_response *response)
{
    struct json_writer j = {0};
    struct obs_condition c;
    (void)request;
    obs_poll_condition(o->poll, &c);
    const struct check checks[CHECKS] = {
        {"querysvc", c.has_status ? NULL : "it does not answer"},
        {"appends", problem_of_writes(&c)},
        {"member", problem_of_state(&c)},
    };
    json_open(&j, NULL, '{');
    json_text(&j, "status", "ready");
    bool good = write_checks(&j, "checks", checks, true);
    json_close(&j, '}');
    if (good) {
        obs_api_answer(response, &j);
        return;
    }
    j.out.len = 0;
    j.comma = false;
    write_checks(&j, NULL, checks, false);
    obs_api_fail(response, 503, "not_ready", "the node is not ready", buf_slice(&j.out));
    buf_free(&j.out);
}
