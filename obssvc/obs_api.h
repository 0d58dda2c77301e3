/* The admin HTTP API (docs/admin-api.md): what its files share. On HTTP's threads. */
#ifndef OBSSVC_OBS_API_H
#define OBSSVC_OBS_API_H

#include "json_writer.h"
#include "obs_parts.h"

/* Answers to one request each. */
typedef void obs_api_fn(struct obs *o, const struct obs_http_request *request,
                        struct obs_http_response *response);

/* obs_api_node.c: what the poller keeps */
obs_api_fn obs_api_ready, obs_api_status, obs_api_nodes, obs_api_replicas, obs_api_services;
/* obs_api_store.c: what daemons told */
obs_api_fn obs_api_metrics, obs_api_history, obs_api_events;
/* obs_api_logs.c */
obs_api_fn obs_api_logs;
/* obs_api_orders.c: with a token */
obs_api_fn obs_api_change_nodes, obs_api_shutdown;

/* ---- obs_api.c ---- */
/* details: a JSON object; without bytes for an empty one. */
void obs_api_fail(struct obs_http_response *response, unsigned status, const char *code, const char *message,
                  struct slice details);
/* 400, which names the argument or member. */
void obs_api_fail_argument(struct obs_http_response *response, const char *name, const char *message);
/* Makes the writer's text the body, a line, and frees it. */
void obs_api_answer(struct obs_http_response *response, struct json_writer *j);
/* The argument as a number, `initial` when it is absent. False (answered): it is none within the bounds. */
bool obs_api_number(const struct obs_http_request *request, struct obs_http_response *response,
                    const char *name, uint64_t most, uint64_t initial, uint64_t *out);

#endif
