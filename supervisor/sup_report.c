/* Texts and the tree's encoding. Pure; nothing can fail. */
#include "sup_report.h"

#include <stdio.h>
#include <string.h>

const char *sup_state_name(enum sup_state state)
{
    static const char *const names[] = {"stopped", "starting", "running", "stopping",
                                        "backoff", "held",     "failed"};
    return names[state];
}

static const char *signal_text(const struct sup_exit *exit, char text[SUP_EXIT_TEXT])
{
    const char *name = sigabbrev_np(exit->code);
    if (name != NULL)
        snprintf(text, SUP_EXIT_TEXT, "signal %d (SIG%s)", exit->code, name);
    else
        snprintf(text, SUP_EXIT_TEXT, "signal %d", exit->code);
    return text;
}

static const char *fixed_text(enum sup_cause cause)
{
    switch (cause) {
    case SUP_CAUSE_HUNG:
        return "hung";
    case SUP_CAUSE_START_TIMEOUT:
        return "start timeout";
    case SUP_CAUSE_SHUTDOWN_TIMEOUT:
        return "shutdown timeout";
    case SUP_CAUSE_CONFIG:
        return "configuration error";
    case SUP_CAUSE_SPAWN:
        return "could not be spawned";
    case SUP_CAUSE_INTENSITY:
        return "too many restarts";
    case SUP_CAUSE_CHILD:
        return "a child failed to start";
    default:
        return "";
    }
}

const char *sup_exit_text(enum sup_cause cause, const struct sup_exit *exit, char text[SUP_EXIT_TEXT])
{
    if (cause == SUP_CAUSE_SIGNAL || (cause == SUP_CAUSE_EXIT && exit->signalled))
        return signal_text(exit, text);
    if (cause == SUP_CAUSE_EXIT)
        snprintf(text, SUP_EXIT_TEXT, "exit %d", exit->code);
    else
        snprintf(text, SUP_EXIT_TEXT, "%s", fixed_text(cause));
    return text;
}

/* ------------------------------------------------------------ the tree */

void sup_pack_text(msgpack_packer *pk, const char *key, const char *value)
{
    mp_pack_cstr(pk, key);
    mp_pack_cstr(pk, value);
}

void sup_pack_number(msgpack_packer *pk, const char *key, uint64_t value)
{
    mp_pack_cstr(pk, key);
    msgpack_pack_uint64(pk, value);
}

static const char *restart_name(enum tree_restart restart)
{
    static const char *const names[] = {"permanent", "transient", "temporary"};
    return names[restart];
}

static const char *strategy_name(enum tree_strategy strategy)
{
    static const char *const names[] = {"one_for_one", "one_for_all", "rest_for_one"};
    return names[strategy];
}

static unsigned depth_of(const struct sup_core *core, int node)
{
    unsigned depth = 0;
    for (int p = sup_core_view(core, node).spec->parent; p >= 0; p = sup_core_view(core, p).spec->parent)
        depth++;
    return depth;
}

static bool is_up(const struct sup_view *view)
{
    if (view->spec->kind == TREE_SERVICE)
        return view->alive;
    return view->state == SUP_STARTING || view->state == SUP_RUNNING || view->state == SUP_STOPPING;
}

static void pack_node(msgpack_packer *pk, const struct sup_core *core, int node,
                      const struct sup_detail *detail, int64_t now_ns)
{
    struct sup_view view = sup_core_view(core, node);
    const struct tree_node *spec = view.spec;
    bool service = spec->kind == TREE_SERVICE;
    char last_exit[SUP_EXIT_TEXT];
    msgpack_pack_map(pk, 11);
    sup_pack_text(pk, "name", spec->name);
    sup_pack_text(pk, "kind", service ? "service" : "supervisor");
    sup_pack_text(pk, "parent", spec->parent < 0 ? "" : sup_core_view(core, spec->parent).spec->name);
    sup_pack_number(pk, "depth", depth_of(core, node));
    sup_pack_text(pk, "state", sup_state_name(view.state));
    sup_pack_number(pk, "pid", is_up(&view) ? (uint64_t)detail->pid : 0);
    sup_pack_number(pk, "restarts", view.restarts);
    sup_pack_number(pk, "uptime_ms", is_up(&view) ? (uint64_t)(now_ns - view.started_ns) / NS_PER_MS : 0);
    if (service)
        sup_pack_text(pk, "restart", restart_name(spec->restart));
    else
        sup_pack_text(pk, "strategy", strategy_name(spec->strategy));
    sup_pack_text(pk, "last_exit", sup_exit_text(view.cause, &view.exit, last_exit));
    sup_pack_text(pk, "status", view.alive ? detail->status : "");
}

void sup_tree_encode(const struct sup_core *core, const struct sup_detail *details, int64_t now_ns,
                     struct buf *out)
{
    size_t count = sup_core_count(core);
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++)
        pack_node(&pk, core, (int)i, &details[i], now_ns);
}

/* ------------------------------------------------------------ the summary */

static void append(char text[SUP_STATUS_MAX + 1], const char *more)
{
    size_t len = strlen(text);
    snprintf(text + len, SUP_STATUS_MAX + 1 - len, "%s", more);
}

void sup_summary(const struct sup_core *core, char text[SUP_STATUS_MAX + 1])
{
    unsigned services = 0, running = 0;
    for (size_t i = 0; i < sup_core_count(core); i++) {
        struct sup_view view = sup_core_view(core, (int)i);
        services += view.spec->kind == TREE_SERVICE;
        running += view.spec->kind == TREE_SERVICE && view.state == SUP_RUNNING;
    }
    snprintf(text, SUP_STATUS_MAX + 1, "%u of %u services running", running, services);
    for (size_t i = 0; i < sup_core_count(core); i++) {
        struct sup_view view = sup_core_view(core, (int)i);
        if (view.spec->kind != TREE_SERVICE || view.state == SUP_RUNNING)
            continue;
        append(text, "; ");
        append(text, view.spec->name);
        append(text, " ");
        append(text, sup_state_name(view.state));
    }
}
