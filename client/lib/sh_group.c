/* Replication groups: what is about a key or a stream goes to a node of its group.
 *
 * The first hello tells which groups there are. With one, nothing here is in the way. With several, the
 * client gets a client more for each group that it has to do with, which talks to that group's nodes only and
 * stays until the end; the first one, which knows the endpoints that the user gave, is asked where those
 * nodes are, whenever one of the others has none that answers:
 *
 *   user ──► client ──► endpoints of the user: status, scans, logs, the empty stream
 *              ├─────► client of group a: its nodes, the ones that are up first
 *              └─────► client of group b: ...
 *
 * An append never leaves the client that it was given to: what may have reached one group's node is never
 * sent to another group. Nothing here is fatal. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sh_internal.h"

enum { LOOK_MS = 100, LOOK_IDLE_MS = 1000, ASK_AGAIN_MS = 1000, HELLO_MS = 1000, ENDPOINTS_MAX = 16 };

/* ---------------------------------------------------------------- what is known */

void shc_groups_met(struct sh_client *c, const struct msg_hello_reply *hello)
{
    struct shc_groups *g = &c->groups;
    if (atomic_load(&g->known) != SHC_GROUPS_UNKNOWN)
        return; /* they never change: the cluster's id says so */
    bool several = group_set_decode(&g->set, hello->groups) && g->set.count > 1;
    if (several) {
        g->all = xcalloc(g->set.count, sizeof *g->all);
        memcpy(g->cluster, hello->cluster_id.data, sizeof g->cluster);
    }
    shc_set(&g->known, several ? SHC_GROUPS_SEVERAL : SHC_GROUPS_ONE);
}

bool shc_groups_are_several(struct sh_client *c, int64_t deadline_ns)
{
    struct shc_groups *g = &c->groups;
    if (c->root == NULL && !shc_on_own_thread(c))
        shc_wait(&g->known, SHC_GROUPS_UNKNOWN, deadline_ns);
    return atomic_load(&g->known) == SHC_GROUPS_SEVERAL;
}

/* ---------------------------------------------------------------- the groups' clients */

static struct sh_client *client_of(const struct shc_groups *g, size_t group)
{
    return atomic_load(&g->all[group].client);
}

static struct sh_client *open_client(struct sh_client *c, size_t group)
{
    struct shc_groups *g = &c->groups;
    pthread_mutex_lock(&g->lock);
    struct sh_client *client = client_of(g, group);
    bool is_new = client == NULL;
    if (is_new) {
        client = shc_open_for_group(c, g->set.all[group].name, g->cluster);
        atomic_store(&g->all[group].client, client);
    }
    pthread_mutex_unlock(&g->lock);
    if (is_new) /* else another thread was faster, and has said so */
        shc_post(c, &client->find);
    return client;
}

static struct sh_client *group_client(struct sh_client *c, size_t group)
{
    struct sh_client *client = client_of(&c->groups, group);
    return client != NULL ? client : open_client(c, group);
}

struct sh_client *shc_client_for(struct sh_client *c, enum group_kind kind, struct slice name)
{
    struct shc_groups *g = &c->groups;
    if (c->root != NULL || name.len == 0 || atomic_load(&g->known) != SHC_GROUPS_SEVERAL)
        return c;
    return group_client(c, group_of(&g->set, kind, name));
}

struct sh_client *shc_client_wait(struct sh_client *c, enum group_kind kind, struct slice name)
{
    shc_groups_are_several(c, clock_mono_ns() + c->options.timeout_ms * (int64_t)NS_PER_MS);
    return shc_client_for(c, kind, name);
}

enum sh_error shc_ask_group(struct sh_client *c, struct shc_call *call, enum group_kind kind,
                            struct slice name, uint32_t type, const void *message, uint32_t reply_type,
                            void *reply)
{
    struct sh_client *to = shc_client_for(c, kind, name);
    enum sh_error e = shc_ask(to, call, type, message, reply_type, reply);
    if (e != SH_WRONG_GROUP || to != c || !shc_groups_are_several(c, clock_mono_ns() + HELLO_MS * NS_PER_MS))
        return e;
    return shc_ask(shc_client_for(c, kind, name), call, type, message, reply_type, reply);
}

/* ---------------------------------------------------------------- appends */

static struct entry entry_of(const struct sh_entry *e)
{
    return (struct entry){.kind = (uint64_t)e->kind,
                          .stream = slice_str(e->stream != NULL ? e->stream : ""),
                          .key = slice_of(e->key, e->key != NULL ? e->key_bytes : 0)};
}

static bool has_name(const struct sh_entry *entries, uint32_t count)
{
    enum group_kind kind;
    struct slice name;
    bool has = false;
    for (uint32_t i = 0; entries != NULL && i < count && !has; i++) {
        const struct entry entry = entry_of(&entries[i]);
        has = group_name_of_entry(&entry, &kind, &name);
    }
    return has;
}

/* Among several groups. */
static enum sh_error choose(struct sh_client **c, const struct sh_entry *entries, uint32_t count)
{
    const struct group_set *set = &(*c)->groups.set;
    struct group_verdict verdict = group_verdict_begin();
    char text[GROUP_TEXT_MAX];
    for (uint32_t i = 0; i < count && !verdict.is_split; i++) {
        const struct entry entry = entry_of(&entries[i]);
        group_verdict_add(&verdict, set, &entry);
    }
    if (verdict.is_split) {
        group_split_text(&verdict, set, text);
        shc_detail(text);
        return SH_BAD_REQUEST;
    }
    if (verdict.group != GROUPS_MAX)
        *c = group_client(*c, verdict.group);
    return SH_OK;
}

enum sh_error shc_route(struct sh_client **c, const struct sh_entry *entries, uint32_t count,
                        int64_t deadline_ns)
{
    struct shc_groups *g = &(*c)->groups;
    if (atomic_load(&g->known) == SHC_GROUPS_ONE || (*c)->root != NULL || !has_name(entries, count))
        return SH_OK;
    if (shc_groups_are_several(*c, deadline_ns))
        return choose(c, entries, count);
    if (atomic_load(&g->known) == SHC_GROUPS_ONE)
        return SH_OK;
    if (shc_on_own_thread(*c)) {
        shc_detail("no node has been met yet, and a callback cannot wait for that");
        return SH_OVERLOADED;
    }
    shc_detail("the node cannot be reached; not appended");
    return SH_TIMEOUT;
}

enum sh_error shc_groups_flush(struct sh_client *c, enum sh_error (*flush)(struct sh_client *c))
{
    struct shc_groups *g = &c->groups;
    enum sh_error e = flush(c);
    for (size_t i = 0; g->all != NULL && i < g->set.count; i++) {
        struct sh_client *client = client_of(g, i);
        enum sh_error one = client != NULL ? flush(client) : SH_OK;
        e = e == SH_OK ? one : e;
    }
    return e;
}

/* ---------------------------------------------------------------- threads and callbacks */

static bool is_thread_of(const struct sh_client *c)
{
    return loop_is_mine(c->loop) || pthread_equal(pthread_self(), c->thread);
}

bool shc_on_own_thread(const struct sh_client *client)
{
    const struct sh_client *c = client->root != NULL ? client->root : client;
    const struct shc_groups *g = &c->groups;
    bool mine = is_thread_of(c);
    size_t count = atomic_load(&g->known) == SHC_GROUPS_SEVERAL ? g->set.count : 0;
    for (size_t i = 0; i < count && !mine; i++)
        mine = client_of(g, i) != NULL && is_thread_of(client_of(g, i));
    return mine;
}

void shc_groups_begin_callback(struct sh_client *c)
{
    if (c->root != NULL || atomic_load(&c->groups.known) == SHC_GROUPS_SEVERAL)
        pthread_mutex_lock(c->root != NULL ? &c->root->groups.callbacks : &c->groups.callbacks);
}

void shc_groups_end_callback(struct sh_client *c)
{
    if (c->root != NULL || atomic_load(&c->groups.known) == SHC_GROUPS_SEVERAL)
        pthread_mutex_unlock(c->root != NULL ? &c->root->groups.callbacks : &c->groups.callbacks);
}

/* ---------------------------------------------------------------- where the nodes are; the loop's */

/* Endpoints on their way to a group's client. */
struct places {
    struct shc_mail mail;
    char **all;
    size_t count;
};

static void free_places(char **all, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(all[i]);
    free(all);
}

/* On the loop of the group's client. */
static void take_places(struct sh_client *c, void *arg)
{
    struct places *p = arg;
    bool same = p->count == c->options.endpoint_count;
    for (size_t i = 0; i < p->count && same; i++)
        same = strcmp(p->all[i], c->endpoints[i]) == 0;
    if (!same && p->count > 0 && !atomic_load(&c->connected)) {
        char **old = c->endpoints;
        size_t count = c->options.endpoint_count;
        c->endpoints = p->all;
        c->options.endpoint_count = p->count;
        p->all = old;
        p->count = count;
        shc_query_begin_anew(c);
    }
    free_places(p->all, p->count);
    free(p);
}

/* One that cannot be used is left out. */
static bool add_place(struct places *p, const char *endpoint)
{
    char in[LINK_ENDPOINT_MAX], out[LINK_ENDPOINT_MAX];
    if (link_endpoint_urls(endpoint, in, out) == SH_OK)
        p->all[p->count++] = xstrdup(endpoint);
    return p->count < ENDPOINTS_MAX + 1;
}

static void give_places(struct sh_client *c, struct sh_client *to, const struct msg_group_of_reply *reply)
{
    struct places *p = xcalloc(1, sizeof *p);
    struct mp m = mp_of(reply->endpoints);
    struct slice text;
    char endpoint[LINK_ENDPOINT_MAX];
    uint32_t count;
    bool good = mp_array(&m, &count);
    p->mail = (struct shc_mail){.fn = take_places, .arg = p};
    p->all = xcalloc(ENDPOINTS_MAX + 1, sizeof *p->all);
    if (reply->here) /* the node that has just answered; by ipc, maybe */
        add_place(p, shc_query_endpoint(c));
    for (uint32_t i = 0; good && i < count && mp_str(&m, &text); i++)
        good = !shc_copy(endpoint, sizeof endpoint, text) || add_place(p, endpoint);
    shc_post(to, &p->mail);
}

static void ask_for(struct sh_client *c, size_t group)
{
    struct shc_groups *g = &c->groups;
    struct buf body = {0};
    const struct msg_group_of ask = {.group = slice_str(g->set.all[group].name)};
    msg_encode(MSG_group_of, &ask, &body);
    g->asked = group;
    g->all[group].asked_ns = loop_now_ns(c->loop);
    shc_query_send(c, MSG_group_of, buf_slice(&body), &g->number);
    buf_free(&body);
}

/* Asks for the first group whose client has no node that answers; one after the other. */
static void look(void *arg)
{
    struct sh_client *c = arg;
    struct shc_groups *g = &c->groups;
    bool all_good = true;
    int64_t now_ns = loop_now_ns(c->loop);
    for (size_t i = 0; i < g->set.count; i++) {
        struct sh_client *client = client_of(g, i);
        if (client == NULL || atomic_load(&client->connected))
            continue;
        all_good = false;
        bool due = g->all[i].asked_ns == 0 || now_ns - g->all[i].asked_ns >= ASK_AGAIN_MS * NS_PER_MS;
        if (g->number == 0 && due)
            ask_for(c, i);
    }
    loop_timer_after(c->loop, &g->look, (all_good ? LOOK_IDLE_MS : LOOK_MS) * NS_PER_MS);
}

bool shc_groups_on_answer(struct sh_client *c, uint64_t number, uint32_t type, struct slice body)
{
    struct shc_groups *g = &c->groups;
    struct msg_group_of_reply reply;
    if (g->number == 0 || number != g->number)
        return false;
    g->number = 0;
    if (type == MSG_group_of_reply && msg_decode(type, body, &reply) == SH_OK)
        give_places(c, client_of(g, g->asked), &reply);
    look(c);
    return true;
}

void shc_groups_link_closed(struct sh_client *c)
{
    c->groups.number = 0;
}

static void on_find(struct sh_client *c, void *arg)
{
    (void)arg;
    look(c);
}

/* ---------------------------------------------------------------- life */

void shc_groups_open(struct sh_client *c)
{
    struct shc_groups *g = &c->groups;
    pthread_mutex_init(&g->lock, NULL);
    pthread_mutex_init(&g->callbacks, NULL);
    c->find = (struct shc_mail){.fn = on_find};
    g->look = (struct loop_timer){.fn = look, .arg = c};
}

void shc_groups_stop(struct sh_client *c)
{
    loop_timer_cancel(c->loop, &c->groups.look);
}

/* True: there was one. */
static bool stop_clients(struct shc_groups *g)
{
    bool any = false;
    for (size_t i = 0; g->all != NULL && i < g->set.count; i++) {
        struct sh_client *client = client_of(g, i);
        if (client == NULL || client->stopped)
            continue;
        shc_stop(client);
        any = true;
    }
    return any;
}

/* A callback of one may ask another for something, or be the first to do so: all end before any is freed. */
void shc_groups_close(struct sh_client *c)
{
    struct shc_groups *g = &c->groups;
    while (stop_clients(g))
        ;
    for (size_t i = 0; g->all != NULL && i < g->set.count; i++)
        if (client_of(g, i) != NULL)
            shc_free(client_of(g, i));
    free(g->all);
    group_set_free(&g->set);
    pthread_mutex_destroy(&g->lock);
    pthread_mutex_destroy(&g->callbacks);
}

/* ---------------------------------------------------------------- the user's question */

static bool decode_endpoint(struct mp *m, void *item)
{
    struct slice text;
    char **out = item;
    bool good = mp_str(m, &text) && (text.len == 0 || memchr(text.data, 0, text.len) == NULL);
    if (good) {
        *out = xmalloc(text.len + 1);
        snprintf(*out, text.len + 1, "%.*s", (int)text.len, (const char *)text.data);
    }
    return good;
}

enum sh_error sh_group_of(struct sh_client *c, enum sh_group_kind kind, const void *name, size_t bytes,
                          struct sh_group *group)
{
    struct shc_call call = {0};
    struct msg_group_of_reply reply;
    memset(group, 0, sizeof *group);
    if (name == NULL || bytes == 0 || bytes > KEY_MAX || (unsigned)kind > SH_GROUP_STREAM) {
        shc_detail("a key, or the name of a stream, has 1 to 4,096 bytes");
        return name != NULL && bytes > KEY_MAX ? SH_TOO_LARGE : SH_BAD_REQUEST;
    }
    const struct msg_group_of ask = {.kind = kind, .name = slice_of(name, bytes)};
    enum sh_error e = shc_ask(c, &call, MSG_group_of, &ask, MSG_group_of_reply, &reply);
    if (e == SH_OK) {
        const struct shc_items items = shc_items(reply.endpoints, sizeof *group->endpoints, decode_endpoint);
        group->endpoints = items.all;
        group->endpoint_count = items.count;
        group->here = reply.here;
        if (!items.good || !shc_copy(group->name, sizeof group->name, reply.group)) {
            sh_group_free(group);
            shc_detail("malformed answer");
            e = SH_INTERNAL;
        }
    }
    shc_call_free(&call);
    return e;
}

void sh_group_free(struct sh_group *group)
{
    free_places(group->endpoints, group->endpoint_count);
    memset(group, 0, sizeof *group);
}
