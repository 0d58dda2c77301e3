/* Which node a command is for: --endpoint, $SHANGHAI_ENDPOINT, or the configuration, in that order; --node
 * means the configuration, but for commands about a log: there an endpoint and --node go together. */
#include "ctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "link.h"
#include "nng_start.h"

static void add_endpoint(struct ctl_endpoints *out, const char *text, size_t len)
{
    char *copy = xmalloc(len + 1);
    memcpy(copy, text, len);
    copy[len] = 0;
    out->text[out->count++] = copy;
}

/* A comma separates when an endpoint follows: there may be commas in a path. */
static const char *end_of_endpoint(const char *list)
{
    const char *end = list;
    do
        end += strcspn(end + 1, ",") + 1;
    while (*end == ',' && strncmp(end + 1, "ipc:", 4) != 0 && strncmp(end + 1, "tcp:", 4) != 0);
    return end;
}

/* False when there are too many. */
static bool split_endpoints(struct ctl_endpoints *out, const char *list)
{
    while (*list != 0) {
        const char *end = end_of_endpoint(list);
        if (out->count == sizeof out->text / sizeof out->text[0])
            return false;
        add_endpoint(out, list, (size_t)(end - list));
        list = end + (*end == ',');
    }
    return true;
}

static const char *config_file(const struct ctl *ctl)
{
    static const char usual[] = "/etc/shanghai/shanghai.yaml";
    const char *file = ctl_word(ctl, "config", getenv("SHANGHAI_CONFIG"));
    return file != NULL && file[0] != 0 ? file : access(usual, R_OK) == 0 ? usual : NULL;
}

/* Loads the configuration for the node asked for; false (said) when that doesn't work. */
static bool load_config(const struct ctl *ctl, const char *file, struct config *config)
{
    struct buf errors = {0};
    const char *node = ctl_word(ctl, "node", NULL);
    bool good = config_load(file, node, config, &errors);
    if (good && config->self == NULL && config->node_count == 1) {
        char only[CONFIG_ID_MAX + 1];
        snprintf(only, sizeof only, "%s", config->nodes[0].id);
        config_free(config);
        good = config_load(file, only, config, &errors);
    }
    if (!good) {
        fprintf(stderr, "%s", buf_cstr(&errors));
    } else if (config->self == NULL) {
        ctl_usage(ctl, "%s has %zu nodes: choose one by --node", file, config->node_count);
        config_free(config);
        good = false;
    }
    buf_free(&errors);
    return good;
}

static bool endpoints_of_config(const struct ctl *ctl, const char *file, struct ctl_endpoints *out)
{
    struct config config;
    char text[LINK_ENDPOINT_MAX + 64], path[CONFIG_PATH_MAX + 16];
    if (!load_config(ctl, file, &config))
        return false;
    snprintf(path, sizeof path, "%s/query.in", config.run_dir);
    if (access(path, F_OK) == 0 || access(config.run_dir, F_OK) == 0) {
        snprintf(text, sizeof text, "ipc://%.250s/query", config.run_dir);
        add_endpoint(out, text, strlen(text));
    } else {
        snprintf(text, sizeof text, "tcp://%s:%u", config.self->host, config.self->port);
        add_endpoint(out, text, strlen(text));
    }
    config_free(&config);
    return true;
}

/* NULL or empty: the configuration counts. */
static const char *given_endpoints(const struct ctl *ctl)
{
    const char *list = ctl_word(ctl, "endpoint", NULL);
    bool by_config = ctl_has(ctl, "config") || (ctl_has(ctl, "node") && !ctl->command->of_log);
    return list != NULL || by_config ? list : getenv("SHANGHAI_ENDPOINT");
}

bool ctl_node_names_log(const struct ctl *ctl)
{
    const char *list = given_endpoints(ctl);
    return ctl->command->of_log && ctl_has(ctl, "node") && list != NULL && list[0] != 0;
}

bool ctl_find_endpoints(const struct ctl *ctl, struct ctl_endpoints *out)
{
    *out = (struct ctl_endpoints){0};
    const char *list = given_endpoints(ctl);
    if (ctl_has(ctl, "endpoint") && ctl_has(ctl, "node") && !ctl->command->of_log) {
        ctl_usage(ctl, "--endpoint says which node, and --node does: give one of them");
        return false;
    }
    if (list != NULL && list[0] != 0) {
        if (!split_endpoints(out, list)) {
            ctl_usage(ctl, "--endpoint has at most %zu endpoints", sizeof out->text / sizeof out->text[0]);
            ctl_endpoints_free(out);
            return false;
        }
    } else {
        const char *file = config_file(ctl);
        if (file != NULL)
            return endpoints_of_config(ctl, file, out);
    }
    if (out->count > 0)
        return true;
    ctl_usage(ctl, ctl_has(ctl, "node") ? "which node? --node needs --config or $SHANGHAI_CONFIG"
                                        : "which node? Give --endpoint, $SHANGHAI_ENDPOINT or --config");
    return false;
}

void ctl_endpoints_free(struct ctl_endpoints *endpoints)
{
    for (size_t i = 0; i < endpoints->count; i++)
        free(endpoints->text[i]);
    endpoints->count = 0;
}

uint32_t ctl_timeout_ms(const struct ctl *ctl)
{
    return (uint32_t)(ctl_number(ctl, "timeout", UINT64_C(30000) * NS_PER_MS) / NS_PER_MS);
}

static const char *const ack_names[] = {"local", "quorum", "all"};

const char *ctl_ack_name(enum sh_ack ack)
{
    return ack_names[ack];
}

bool ctl_ack(const struct ctl *ctl, enum sh_ack *ack)
{
    const char *word = ctl_word(ctl, "ack", "local");
    for (*ack = SH_ACK_LOCAL; *ack <= SH_ACK_ALL; (*ack)++)
        if (strcmp(word, ack_names[*ack]) == 0)
            return true;
    ctl_usage(ctl, "--ack must be local, quorum or all, not `%s`", word);
    return false;
}

uint32_t ctl_ack_timeout_ms(const struct ctl *ctl)
{
    uint64_t usual_ms = sh_default_options().ack_timeout_ms;
    return (uint32_t)(ctl_number(ctl, "ack-timeout", usual_ms * NS_PER_MS) / NS_PER_MS);
}

struct sh_options ctl_client_options(const struct ctl *ctl, const struct ctl_endpoints *endpoints)
{
    struct sh_options options = sh_default_options();
    options.endpoints = (const char *const *)endpoints->text;
    options.endpoint_count = endpoints->count;
    options.timeout_ms = ctl_timeout_ms(ctl);
    options.ack_timeout_ms = ctl_ack_timeout_ms(ctl);
    return options;
}

/* ---------------------------------------------------------------- opening, and why that fails */

const char *ctl_socket_problem(const char *path)
{
    if (access(path, R_OK | W_OK) == 0)
        return NULL;
    if (errno == EACCES)
        return "permission denied; run this as the node's user, or as root";
    return errno == ENOENT || errno == ENOTDIR ? "there is no such socket; is the node running?"
                                               : strerror(errno);
}

static const char *endpoint_problem(const char *endpoint)
{
    char path[LINK_ENDPOINT_MAX + 8];
    if (strncmp(endpoint, "ipc://", 6) != 0)
        return NULL;
    snprintf(path, sizeof path, "%s.in", endpoint + 6);
    return ctl_socket_problem(path);
}

static void explain_endpoint(struct buf *out, const char *endpoint)
{
    const char *problem = endpoint_problem(endpoint);
    buf_printf(out, "%s%s%s%s", out->len > 0 ? ", " : "", endpoint, problem != NULL ? ": " : "",
               problem != NULL ? problem : "");
}

/* A person who waits should know for what, when it is plain that nothing is there yet. */
static void tell_of_waiting(const struct ctl *ctl, const struct ctl_endpoints *endpoints)
{
    struct buf places = {0};
    char wait[CTL_TEXT_MAX];
    size_t hopeless = 0;
    if (ctl->format == CTL_JSON || !isatty(STDERR_FILENO))
        return;
    for (size_t i = 0; i < endpoints->count; i++) {
        hopeless += endpoint_problem(endpoints->text[i]) != NULL;
        explain_endpoint(&places, endpoints->text[i]);
    }
    if (hopeless == endpoints->count)
        fprintf(stderr, "shanghaictl: waiting up to %s: %s\n",
                ctl_duration((int64_t)ctl_timeout_ms(ctl) * NS_PER_MS, wait), buf_cstr(&places));
    buf_free(&places);
}

int ctl_open(const struct ctl *ctl, struct sh_client **client)
{
    struct ctl_endpoints endpoints;
    if (!ctl_find_endpoints(ctl, &endpoints))
        return CTL_USAGE;
    tell_of_waiting(ctl, &endpoints);
    struct sh_options options = ctl_client_options(ctl, &endpoints);
    nng_start();
    enum sh_error e = sh_open(&options, client);
    if (e != SH_OK)
        ctl_fail(ctl, endpoints.text[0], e, sh_last_error_detail());
    ctl_endpoints_free(&endpoints);
    return e == SH_OK ? CTL_DONE : CTL_USAGE;
}

void ctl_node_error_text(const struct ctl *ctl, enum sh_error error, const char *detail, struct buf *out)
{
    struct ctl_endpoints endpoints;
    struct buf places = {0}, text = {0};
    if ((error != SH_UNAVAILABLE && error != SH_TIMEOUT) || !ctl_find_endpoints(ctl, &endpoints)) {
        ctl_error_text(ctl, error, detail, out);
        return;
    }
    for (size_t i = 0; i < endpoints.count; i++)
        explain_endpoint(&places, endpoints.text[i]);
    buf_printf(&text, "%s (%s)", detail[0] != 0 ? detail : "no answer", buf_cstr(&places));
    ctl_error_text(ctl, error, buf_cstr(&text), out);
    buf_free(&places);
    buf_free(&text);
    ctl_endpoints_free(&endpoints);
}

int ctl_fail_node(const struct ctl *ctl, const char *what, enum sh_error error, const char *detail)
{
    struct buf text = {0};
    ctl_node_error_text(ctl, error, detail, &text);
    int code = ctl_fail_text(ctl, what, error, buf_cstr(&text));
    buf_free(&text);
    return code;
}

bool ctl_data_dir(const struct ctl *ctl, char *out, size_t size)
{
    struct config config;
    const char *dir = ctl_word(ctl, "data", NULL), *file = config_file(ctl);
    if (dir == NULL && file == NULL) {
        ctl_usage(ctl, "which data directory? Give --data or --config");
        return false;
    }
    if (dir == NULL) {
        if (!load_config(ctl, file, &config))
            return false;
        snprintf(out, size, "%s", config.data_dir);
        config_free(&config);
        return true;
    }
    if (dir[0] != 0 && snprintf(out, size, "%s", dir) < (int)size)
        return true;
    ctl_usage(ctl, "--data is %s", dir[0] == 0 ? "empty" : "too long");
    return false;
}

bool ctl_run_dir(const struct ctl *ctl, char *out, size_t size)
{
    struct ctl_endpoints endpoints;
    bool found = false;
    if (!ctl_find_endpoints(ctl, &endpoints))
        return false;
    for (size_t i = 0; i < endpoints.count && !found; i++) {
        const char *path = endpoints.text[i] + strlen("ipc://");
        const char *slash = strrchr(endpoints.text[i], '/');
        if (strncmp(endpoints.text[i], "ipc://", 6) != 0 || slash <= path)
            continue;
        found = snprintf(out, size, "%.*s", (int)(slash - path), path) < (int)size;
    }
    ctl_endpoints_free(&endpoints);
    if (!found)
        ctl_usage(ctl, "this speaks to the supervisor on its own machine: give an ipc endpoint or --config");
    return found;
}
