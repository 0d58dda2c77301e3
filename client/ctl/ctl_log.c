/* Which log a command is about: the node's own, or a copy that it holds, by --log or --node. */
#include "cmd.h"

#include <string.h>

static bool is_own(const uint8_t log[16])
{
    static const uint8_t zero[16];
    return memcmp(log, zero, sizeof zero) == 0;
}

const uint8_t *ctl_other_log(const uint8_t log[16])
{
    return is_own(log) ? NULL : log;
}

enum sh_error ctl_log_ends(struct sh_client *client, const uint8_t log[16], uint64_t *first, uint64_t *last)
{
    struct sh_status status;
    struct sh_log_info info = {0};
    enum sh_error e = is_own(log) ? sh_status(client, &status) : sh_log_info(client, log, &info);
    if (e != SH_OK)
        return e;
    *first = is_own(log) ? status.first_lsn : info.first_lsn;
    *last = is_own(log) ? status.durable_lsn : info.durable_lsn;
    sh_log_info_free(&info);
    return SH_OK;
}

static int no_log(const struct ctl *ctl, const char *text)
{
    return ctl_fail_text(ctl, ctl->command->name, SH_NOT_FOUND, text);
}

static int find_of_member(const struct ctl *ctl, struct sh_client *client, const char *id, uint8_t log[16])
{
    struct sh_nodes nodes;
    char text[256];
    bool known = false;
    enum sh_error e = sh_nodes(client, &nodes);
    if (e != SH_OK)
        return ctl_fail_member(ctl, NULL, e);
    for (size_t i = 0; i < nodes.node_count; i++)
        if (strcmp(nodes.nodes[i].id, id) == 0) {
            known = true;
            memcpy(log, nodes.nodes[i].log, 16);
        }
    sh_nodes_free(&nodes);
    if (known && !is_own(log))
        return CTL_DONE;
    snprintf(text, sizeof text,
             known ? "%.64s has never come: it has no log yet"
                   : "there is no member %.64s; `shanghaictl nodes` shows who is one",
             id);
    return no_log(ctl, text);
}

int ctl_open_log(const struct ctl *ctl, struct sh_client **client, uint8_t log[16])
{
    const char *uuid = ctl_word(ctl, "log", NULL);
    const char *member = ctl_node_names_log(ctl) ? ctl_word(ctl, "node", NULL) : NULL;
    struct id16 id = {{0}};
    if (uuid != NULL && member != NULL)
        return ctl_usage(ctl, "--log and --node both say which log: give one of them");
    if (uuid != NULL && (!id16_parse(uuid, &id) || id16_is_zero(id)))
        return ctl_usage(ctl,
                         "--log must be the uuid of a log; `shanghaictl nodes --format json` shows those "
                         "of the members");
    memcpy(log, id.bytes, sizeof id.bytes);
    int code = ctl_open(ctl, client);
    if (code == CTL_DONE && member != NULL) {
        code = find_of_member(ctl, *client, member, log);
        if (code != CTL_DONE)
            sh_close(*client);
    }
    return code;
}
