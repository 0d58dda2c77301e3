/* Who may change something over HTTP: whoever knows the first line of the file that `admin_token_file` names.
 * The file is read each time, so that a new token counts at once. */
#ifndef OBSSVC_OBS_TOKEN_H
#define OBSSVC_OBS_TOKEN_H

enum { OBS_TOKEN_MAX = 1024 };

enum obs_token {
    OBS_TOKEN_RIGHT,
    OBS_TOKEN_NOT_CONFIGURED,
    OBS_TOKEN_UNREADABLE, /* there is no such file, or no token in it */
    OBS_TOKEN_EXPOSED,    /* others than its owner may read or write it */
    OBS_TOKEN_ABSENT,
    OBS_TOKEN_WRONG
};

/* file "": none is configured. given: NULL for none. How long it takes says nothing of the token but its
 * length. */
enum obs_token obs_token_check(const char *file, const char *given);

#endif
