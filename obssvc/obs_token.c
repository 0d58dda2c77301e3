/* The token's file. */
#include "obs_token.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The first line, without its end. */
static enum obs_token read_token(int fd, char token[OBS_TOKEN_MAX + 1])
{
    struct stat file;
    if (fd < 0 || fstat(fd, &file) != 0 || !S_ISREG(file.st_mode))
        return OBS_TOKEN_UNREADABLE;
    if ((file.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return OBS_TOKEN_EXPOSED;
    ssize_t n = read(fd, token, OBS_TOKEN_MAX);
    if (n <= 0)
        return OBS_TOKEN_UNREADABLE;
    token[n] = 0;
    token[strcspn(token, "\r\n")] = 0;
    return token[0] != 0 ? OBS_TOKEN_RIGHT : OBS_TOKEN_UNREADABLE;
}

/* Looks at each byte of what was given, whatever the first ones are. */
static bool is_equal(const char *token, const char *given)
{
    size_t len = strlen(token), given_len = strlen(given);
    volatile unsigned char apart = len != given_len;
    for (size_t i = 0; i < given_len; i++)
        apart |= (unsigned char)(given[i] ^ token[len > 0 ? i % len : 0]);
    return apart == 0;
}

enum obs_token obs_token_check(const char *file, const char *given)
{
    char token[OBS_TOKEN_MAX + 1];
    if (file[0] == 0)
        return OBS_TOKEN_NOT_CONFIGURED;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    enum obs_token result = read_token(fd, token);
    if (fd >= 0)
        close(fd);
    if (result == OBS_TOKEN_RIGHT && given == NULL)
        result = OBS_TOKEN_ABSENT;
    else if (result == OBS_TOKEN_RIGHT && !is_equal(token, given))
        result = OBS_TOKEN_WRONG;
    explicit_bzero(token, sizeof token);
    return result;
}
