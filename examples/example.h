/* What every example needs: a client, and an end that says why. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <shanghai.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ends the program. */
static inline void fail(const char *what, enum sh_error error)
{
    const char *detail = sh_last_error_detail();
    fprintf(stderr, "%s: %s%s%s\n", what, sh_error_name(error), detail[0] != 0 ? ": " : "", detail);
    exit(error == SH_TIMEOUT || error == SH_UNAVAILABLE ? 3 : 1);
}

static inline void check(const char *what, enum sh_error error)
{
    if (error != SH_OK)
        fail(what, error);
}

/* A client of the nodes in $SHANGHAI_ENDPOINT, several with commas: the next one is tried when one is away.
 */
static inline struct sh_client *open_client(void)
{
    const char *endpoints[16];
    struct sh_options options = sh_default_options();
    struct sh_client *client;
    char *text = getenv("SHANGHAI_ENDPOINT"), *rest = NULL;
    if (text == NULL)
        text = "ipc:///run/shanghai/n1/query";
    text = strdup(text);
    for (char *one = strtok_r(text, ",", &rest); one != NULL; one = strtok_r(NULL, ",", &rest))
        if (options.endpoint_count < sizeof endpoints / sizeof *endpoints)
            endpoints[options.endpoint_count++] = one;
    options.endpoints = endpoints;
    options.timeout_ms = 10000;
    check("open", sh_open(&options, &client));
    free(text);
    return client;
}

#endif
