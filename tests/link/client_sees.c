/* What a client sees of its own appends: client_sees ENDPOINT, told what to do by lines on standard input,
 * and answering each with a line.
 *
 *   fresh N   appends N times; how often status, and a reader placed behind the last entry, did not know of
 * it stand     reads up to the end and stays there: the LSN that comes next next      the name of what the
 * next read gives */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shanghai.h"

static struct sh_client *client;
static struct sh_reader *reader;

static uint64_t append_one(void)
{
    struct sh_append_result result;
    const struct sh_entry entry = {.payload = "x", .payload_bytes = 1};
    enum sh_error error;
    while ((error = sh_append(client, &entry, 1, SH_ACK_LOCAL, &result)) == SH_TIMEOUT)
        ; /* a busy machine: it may have come about, and then there are two */
    if (error != SH_OK) {
        printf("append: %s\n", sh_error_name(error));
        exit(1);
    }
    return result.first_lsn;
}

static bool status_knows(uint64_t lsn)
{
    struct sh_status status;
    enum sh_error error;
    while ((error = sh_status(client, &status)) == SH_TIMEOUT)
        ;
    return error == SH_OK && status.durable_lsn >= lsn;
}

static bool end_is_behind(uint64_t lsn)
{
    const struct sh_read_options options = {.from = UINT64_MAX};
    struct sh_reader *end;
    struct sh_event event;
    if (sh_read_open(client, &options, &end) != SH_OK)
        return false;
    enum sh_error error;
    while ((error = sh_read_next(end, 0, &event)) == SH_TIMEOUT)
        ;
    bool behind = error == SH_NOT_FOUND && sh_read_position(end) > lsn;
    sh_read_close(end);
    return behind;
}

static void fresh(unsigned count)
{
    unsigned stale = 0;
    for (unsigned i = 0; i < count; i++)
        stale += !(i % 2 == 0 ? status_knows(append_one()) : end_is_behind(append_one()));
    printf("%u\n", stale);
}

static void stand(void)
{
    const struct sh_read_options options = {0};
    struct sh_event event;
    append_one(); /* before, since an open reader has asked already */
    if (reader != NULL)
        sh_read_close(reader);
    reader = NULL;
    enum sh_error error = sh_read_open(client, &options, &reader);
    while (error == SH_OK || (error == SH_TIMEOUT && reader != NULL))
        error = sh_read_next(reader, 5000, &event);
    printf("%s %llu\n", sh_error_name(error), (unsigned long long)sh_read_position(reader));
}

int main(int argc, char **argv)
{
    struct sh_options options = sh_default_options();
    char line[64];
    options.endpoints = (const char *const *)&argv[1];
    options.endpoint_count = (size_t)argc - 1;
    options.timeout_ms = 2000;
    if (argc < 2 || sh_open(&options, &client) != SH_OK)
        return 2;
    while (fgets(line, sizeof line, stdin) != NULL) {
        struct sh_event event;
        if (strncmp(line, "fresh ", strlen("fresh ")) == 0)
            fresh((unsigned)atoi(line + strlen("fresh ")));
        else if (strcmp(line, "stand\n") == 0)
            stand();
        else if (strcmp(line, "next\n") == 0)
            printf("%s\n", sh_error_name(sh_read_next(reader, 2000, &event)));
        fflush(stdout);
    }
    if (reader != NULL)
        sh_read_close(reader);
    sh_close(client);
    return 0;
}
