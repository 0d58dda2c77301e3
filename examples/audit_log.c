/* Who has done what, and when: never changed, on a majority of the nodes before it is said to be recorded.
 *
 *   audit_log record WHO WHAT
 *   audit_log show [WHO]
 *
 * An entry is an event of the stream "audit": what was done is its payload, who did it a header. */
#include <time.h>

#include "example.h"

static void record(struct sh_client *client, const char *who, const char *what)
{
    const struct sh_header header = {
        .name = "who", .name_bytes = 3, .value = who, .value_bytes = strlen(who)};
    const struct sh_entry entry = {.stream = "audit",
                                   .payload = what,
                                   .payload_bytes = strlen(what),
                                   .headers = &header,
                                   .header_count = 1};
    struct sh_append_result result;
    check("record", sh_append(client, &entry, 1, SH_ACK_QUORUM, &result));
    if (result.ack < SH_ACK_QUORUM) { /* durable here, and on its way: that is said, not hidden */
        fprintf(stderr, "recorded on this node only, so far\n");
        exit(3);
    }
}

/* Zero bytes when it says nothing. */
static struct sh_header who_of(const struct sh_event *event)
{
    struct sh_header header;
    for (uint32_t i = 0; sh_event_header(event, i, &header); i++)
        if (header.name_bytes == 3 && memcmp(header.name, "who", 3) == 0)
            return header;
    return (struct sh_header){0};
}

static void print(const struct sh_event *event, const struct sh_header *who)
{
    time_t second = (time_t)(event->hlc >> 16) / 1000; /* the clock of the node that took it */
    char when[32];
    strftime(when, sizeof when, "%F %T", gmtime(&second));
    printf("%s  %-10.*s  %.*s\n", when, (int)who->value_bytes, (const char *)who->value,
           (int)event->payload_bytes, (const char *)event->payload);
}

static void show(struct sh_client *client, const char *only)
{
    const struct sh_stream_options options = {.stream = "audit"};
    struct sh_stream *stream;
    struct sh_event event;
    enum sh_error e;
    check("open the stream", sh_stream_open(client, &options, &stream));
    while ((e = sh_stream_next(stream, 0, &event)) == SH_OK) {
        struct sh_header who = who_of(&event);
        if (only == NULL ||
            (who.value_bytes == strlen(only) && memcmp(who.value, only, who.value_bytes) == 0))
            print(&event, &who);
    }
    if (e != SH_NOT_FOUND) /* the end */
        fail("show", e);
    sh_stream_close(stream);
}

int main(int argc, char **argv)
{
    bool records = argc == 4 && strcmp(argv[1], "record") == 0;
    bool shows = (argc == 2 || argc == 3) && strcmp(argv[1], "show") == 0;
    if (!records && !shows) {
        fprintf(stderr, "usage: audit_log record WHO WHAT | show [WHO]\n");
        return 2;
    }
    struct sh_client *client = open_client();
    if (records)
        record(client, argv[2], argv[3]);
    else
        show(client, argc == 3 ? argv[2] : NULL);
    sh_close(client);
    return 0;
}
