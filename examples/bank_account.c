/* An account whose balance is what its events come to.
 *
 *   bank_account NAME deposit AMOUNT | withdraw AMOUNT | balance
 *
 * Nothing is stored but what has happened: each deposit and withdrawal is an event of the account's stream. A
 * withdrawal is appended on condition that no other event has come since the balance was read: else it is
 * read again. So the account is never overdrawn, however many withdraw at a time through one node. */
#include "example.h"

struct account {
    char stream[128];
    long balance;
    struct sh_version last; /* its last event; LSN 0: none */
};

/* "deposit 100" or "withdraw 100". */
static void apply(struct account *account, const struct sh_event *event)
{
    char text[64];
    long amount;
    snprintf(text, sizeof text, "%.*s", (int)event->payload_bytes, (const char *)event->payload);
    if (sscanf(text, "deposit %ld", &amount) == 1)
        account->balance += amount;
    else if (sscanf(text, "withdraw %ld", &amount) == 1)
        account->balance -= amount;
    memcpy(account->last.log, event->log, sizeof account->last.log);
    account->last.lsn = event->lsn;
}

static struct account read_account(struct sh_client *client, struct sh_session *session, const char *name)
{
    struct account account = {0};
    struct sh_stream *stream;
    struct sh_event event;
    enum sh_error e;
    snprintf(account.stream, sizeof account.stream, "account/%s", name);
    struct sh_stream_options options = {.stream = account.stream, .session = session};
    check("open the stream", sh_stream_open(client, &options, &stream));
    while ((e = sh_stream_next(stream, 0, &event)) == SH_OK)
        apply(&account, &event);
    if (e != SH_NOT_FOUND) /* the end */
        fail("read the account", e);
    sh_stream_close(stream);
    return account;
}

/* SH_CONFLICT: something else has happened to the account meanwhile. */
static enum sh_error append(struct sh_client *client, struct sh_session *session,
                            const struct account *account, const char *what, long amount)
{
    char text[64];
    int len = snprintf(text, sizeof text, "%s %ld", what, amount);
    const struct sh_entry entry = {.stream = account->stream, .payload = text, .payload_bytes = (size_t)len};
    const struct sh_condition unchanged = {.kind = SH_IF_STREAM,
                                           .name = account->stream,
                                           .name_bytes = strlen(account->stream),
                                           .at = account->last};
    const struct sh_append_options options = {
        .session = session, .conditions = &unchanged, .condition_count = 1};
    return sh_append_with(client, &entry, 1, SH_ACK_LOCAL, &options, NULL);
}

/* Returns the exit code. */
static int change(struct sh_client *client, struct sh_session *session, const char *name, const char *what,
                  long amount)
{
    for (;;) {
        struct account account = read_account(client, session, name);
        if (strcmp(what, "withdraw") == 0 && account.balance < amount) {
            fprintf(stderr, "%s has %ld only\n", name, account.balance);
            return 1;
        }
        enum sh_error e = append(client, session, &account, what, amount);
        if (e == SH_OK)
            return 0;
        if (e != SH_CONFLICT)
            fail(what, e);
    }
}

static int usage(void)
{
    fprintf(stderr, "usage: bank_account NAME deposit AMOUNT | withdraw AMOUNT | balance\n");
    return 2;
}

int main(int argc, char **argv)
{
    long amount = argc == 4 ? strtol(argv[3], NULL, 10) : 0;
    bool asks = argc == 3 && strcmp(argv[2], "balance") == 0;
    bool changes =
        argc == 4 && amount > 0 && (strcmp(argv[2], "deposit") == 0 || strcmp(argv[2], "withdraw") == 0);
    int code = 0;
    if (!asks && !changes)
        return usage();
    struct sh_client *client = open_client();
    struct sh_session *session =
        sh_session_new(); /* what is read next is never older than what was written */
    if (changes)
        code = change(client, session, argv[1], argv[2], amount);
    else
        printf("%ld\n", read_account(client, session, argv[1]).balance);
    sh_session_free(session);
    sh_close(client);
    return code;
}
