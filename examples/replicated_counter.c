/* A counter that every node adds to, also while they do not reach each other.
 *
 *   replicated_counter KEY [N]
 *
 * Adds N (which may be below zero) to the counter, and prints what it is on this node. Nobody asks another
 * node first: each keeps a sum for each log, and the counter is all of them together. So nothing is lost when
 * two add at a time, and all nodes show the same once they have heard of each other. */
#include "example.h"

static void add(struct sh_client *client, struct sh_session *session, const char *key, int64_t delta)
{
    const struct sh_entry entry = {
        .kind = SH_ENTRY_ADD, .key = key, .key_bytes = strlen(key), .delta = delta};
    const struct sh_append_options options = {.session = session};
    /* The library sends it again, as often as that takes, under the same number: it counts once. */
    check("add", sh_append_with(client, &entry, 1, SH_ACK_LOCAL, &options, NULL));
}

static int64_t value_of(struct sh_client *client, struct sh_session *session, const char *key)
{
    struct sh_rows rows;
    check("get", sh_kv_get(client, session, &(struct sh_key){key, strlen(key)}, 1, &rows));
    int64_t value = rows.rows[0].has_counter ? rows.rows[0].counter : 0;
    sh_rows_free(&rows);
    return value;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3 || argv[1][0] == 0) {
        fprintf(stderr, "usage: replicated_counter KEY [N]\n");
        return 2;
    }
    struct sh_client *client = open_client();
    struct sh_session *session = sh_session_new(); /* its own addition is in what it reads */
    if (argc == 3)
        add(client, session, argv[1], strtoll(argv[2], NULL, 10));
    printf("%lld\n", (long long)value_of(client, session, argv[1]));
    sh_session_free(session);
    sh_close(client);
    return 0;
}
