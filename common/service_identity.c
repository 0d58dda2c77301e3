/* Which node a service runs for: read by all services but walsvc, which makes it. */
#include <string.h>

#include "log.h"
#include "log_reader.h"
#include "service.h"

enum service_exit service_identity(const struct service *service, const struct vfs *fs,
                                   struct node_identity *out)
{
    const struct config *config = service->config;
    enum sh_error e = node_identity_read(fs, config->data_dir, out);
    if (e == SH_NOT_FOUND) {
        log_info("no node identity yet: walsvc has not made it; starting again later");
        return EXIT_FAULT;
    }
    if (e == SH_INTERNAL)
        return EXIT_FAULT;
    if (e != SH_OK) {
        log_error("the node's identity cannot be used", log_text("dir", config->data_dir),
                  log_text("error", sh_error_name(e)));
        return EXIT_CONFIG;
    }
    if (strcmp(out->node, config->self->id) != 0) {
        log_error("the data directory belongs to another node", log_text("dir", config->data_dir),
                  log_text("belongs_to", out->node), log_text("started_as", config->self->id));
        return EXIT_CONFIG;
    }
    return EXIT_DONE;
}
