/* The commands of the control socket. Each answers at once; what takes time can be watched by `tree`. */
#include "sup_shell_state.h"

#include <stdlib.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"

enum { OBITUARIES_BY_DEFAULT = 20 };

static void answer(struct sup_reply *reply, enum sh_error error)
{
    reply->message.code = (uint64_t)error;
    reply->message.text = buf_slice(&reply->text);
}

static void refuse(struct sup_reply *reply, enum sh_error error, const char *text)
{
    buf_append_str(&reply->text, text);
    answer(reply, error);
}

static void answer_tree(struct sup_shell *shell, struct sup_reply *reply)
{
    size_t count = sup_core_count(shell->core);
    struct sup_detail *details = xcalloc(count, sizeof *details);
    for (size_t i = 0; i < count; i++) {
        const struct sup_service *s = &shell->services[i];
        bool service = sup_core_view(shell->core, (int)i).spec->kind == TREE_SERVICE;
        details[i] = (struct sup_detail){service ? s->process.pid : getpid(), s->status};
    }
    sup_tree_encode(shell->core, details, clock_mono_ns(), &reply->tree);
    free(details);
    reply->message.tree = buf_slice(&reply->tree);
}

static void answer_obituaries(struct sup_shell *shell, const struct msg_svc_command *command,
                              struct sup_reply *reply)
{
    unsigned limit = command->limit > 0 ? (unsigned)command->limit : OBITUARIES_BY_DEFAULT;
    if (command->service.len > 0 && sup_core_find(shell->core, command->service) < 0) {
        refuse(reply, SH_NOT_FOUND, "there is no service of that name in the tree");
        return;
    }
    sup_obituary_list(shell->obituary_dir, command->service, limit, SUP_REPLY_BYTES, &reply->obituaries);
    reply->message.obituaries = buf_slice(&reply->obituaries);
}

static void command_node(struct sup_shell *shell, const struct msg_svc_command *command,
                         enum sup_event_kind kind, const char *done, struct sup_reply *reply)
{
    const char *text = NULL;
    int node = sup_core_find(shell->core, command->service);
    if (command->service.len == 0) {
        refuse(reply, SH_BAD_REQUEST, "the command needs the name of a service or supervisor");
        return;
    }
    if (node < 0) {
        refuse(reply, SH_NOT_FOUND, "there is no service or supervisor of that name in the tree");
        return;
    }
    struct sup_view view = sup_core_view(shell->core, node);
    if (kind == SUP_COMMAND_START && view.spec->kind == TREE_SERVICE && view.state == SUP_RUNNING)
        done = "runs already";
    enum sh_error error = sup_shell_step(shell, &(struct sup_event){.kind = kind, .node = node}, &text);
    buf_printf(&reply->text, "%s: %s", view.spec->name, error == SH_OK ? done : text);
    answer(reply, error);
}

/* Of the services at and below a node. */
static unsigned set_levels(struct sup_shell *shell, int top, enum log_level level)
{
    unsigned count = 0;
    for (int i = 0; i < (int)sup_core_count(shell->core); i++) {
        struct sup_view view = sup_core_view(shell->core, i);
        int at = i;
        while (at > top && at >= 0)
            at = sup_core_view(shell->core, at).spec->parent;
        if (at == top && view.spec->kind == TREE_SERVICE)
            count += sup_service_set_log_level(&shell->services[i], level);
    }
    return count;
}

static void command_log_level(struct sup_shell *shell, const struct msg_svc_command *command,
                              struct sup_reply *reply)
{
    int node = command->service.len > 0 ? sup_core_find(shell->core, command->service) : 0;
    if (command->limit > LOG_ERROR) {
        refuse(reply, SH_BAD_REQUEST, "there are four levels: 0 debug, 1 info, 2 warn, 3 error");
        return;
    }
    if (node < 0) {
        refuse(reply, SH_NOT_FOUND, "there is no service or supervisor of that name in the tree");
        return;
    }
    enum log_level level = (enum log_level)command->limit;
    unsigned count = set_levels(shell, node, level);
    if (command->service.len == 0)
        log_set_level(level);
    buf_printf(&reply->text, "%u %s until their next restart or reload: %s", count,
               count == 1 ? "service" : "services", log_level_name(level));
    answer(reply, SH_OK);
}

static void command_reload(struct sup_shell *shell, struct sup_reply *reply)
{
    answer(reply, sup_shell_reload(shell, &reply->text) ? SH_OK : SH_BAD_REQUEST);
    reply->message.text = buf_slice(&reply->text);
}

static void command_shutdown(struct sup_shell *shell, struct sup_reply *reply)
{
    sup_shell_step(shell, &(struct sup_event){.kind = SUP_SHUTDOWN}, NULL);
    buf_append_str(&reply->text, "the node is stopping");
    answer(reply, SH_OK);
}

void sup_on_command(void *arg, uint64_t correlation, const struct msg_svc_command *command,
                    struct sup_reply *reply)
{
    struct sup_shell *shell = arg;
    struct slice name = command->command;
    bool asks = slice_is(name, "tree") || slice_is(name, "obituary");
    log_for(asks ? LOG_DEBUG : LOG_INFO, correlation, "command", log_slice("command", name),
            log_slice("name", command->service));
    if (slice_is(name, "tree")) {
        answer_tree(shell, reply);
        return;
    }
    if (slice_is(name, "obituary")) {
        answer_obituaries(shell, command, reply);
        return;
    }
    if (slice_is(name, "start"))
        command_node(shell, command, SUP_COMMAND_START, "starting", reply);
    else if (slice_is(name, "stop"))
        command_node(shell, command, SUP_COMMAND_STOP, "stopping, until it is started again", reply);
    else if (slice_is(name, "restart"))
        command_node(shell, command, SUP_COMMAND_RESTART, "restarting", reply);
    else if (slice_is(name, "log-level"))
        command_log_level(shell, command, reply);
    else if (slice_is(name, "reload"))
        command_reload(shell, reply);
    else if (slice_is(name, "shutdown"))
        command_shutdown(shell, reply);
    else
        refuse(reply, SH_BAD_REQUEST,
               "no such command: tree, restart, stop, start, obituary, log-level, shutdown, reload");
}
