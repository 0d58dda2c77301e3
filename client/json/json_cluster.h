/* How a node and its cluster are, as JSON: what `shanghaictl --format json` prints, and the admin HTTP API
 * answers with. Each writes one object. */
#ifndef JSON_CLUSTER_H
#define JSON_CLUSTER_H

#include "json_writer.h"
#include "shanghai.h"

void json_nodes(struct json_writer *j, const struct sh_nodes *nodes);
void json_replicas(struct json_writer *j, const struct sh_replicas *replicas);
/* The members of the object, without its braces. nodes NULL: membersvc does not answer. */
void json_status_fields(struct json_writer *j, const struct sh_status *status, const struct sh_health *health,
                        const struct sh_nodes *nodes);
/* What became of a join, and of a leave. */
void json_joined(struct json_writer *j, const char *id, uint64_t generation);
void json_left(struct json_writer *j, const char *id, const struct sh_leave_result *left);

#endif
