/* The one list of errors: the same names on the wire, in the C library, the CLI and the logs.
 *
 * Values are part of the wire format: never renumber, never reuse. */
#ifndef SHANGHAI_ERROR_H
#define SHANGHAI_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(symbol, value, name, text) */
#define SH_ERRORS(X)                                                                                         \
    X(SH_OK, 0, "ok", "done")                                                                                \
    X(SH_BAD_REQUEST, 1, "bad_request", "the request is malformed or its values are out of range")           \
    X(SH_TOO_LARGE, 2, "too_large", "the request exceeds a size limit")                                      \
    X(SH_OVERLOADED, 3, "overloaded", "a queue is full; try again after a moment")                           \
    X(SH_DISK_FULL, 4, "disk_full", "the node's disk is full or below its reserve")                          \
    X(SH_READ_ONLY, 5, "read_only", "the node does not take writes now")                                     \
    X(SH_CONFLICT, 6, "conflict", "the expected sequence, version or position is not the current one")       \
    X(SH_WRONG_GROUP, 7, "wrong_group", "another replication group holds this key or stream")                \
    X(SH_NOT_FOUND, 8, "not_found", "no such thing")                                                         \
    X(SH_TRIMMED, 9, "trimmed", "the position was removed by retention")                                     \
    X(SH_CORRUPT, 10, "corrupt", "the data at this position is damaged")                                     \
    X(SH_TIMEOUT, 11, "timeout", "no answer in time; the outcome is unknown")                                \
    X(SH_UNAVAILABLE, 12, "unavailable", "the service cannot be reached; the outcome is unknown")            \
    X(SH_NO_QUORUM, 13, "no_quorum", "not enough members can be reached")                                    \
    X(SH_SEQUENCE_EXPIRED, 14, "sequence_expired", "the producer's answer is no longer remembered")          \
    X(SH_ALREADY_MEMBER, 15, "already_member", "the node is a member already")                               \
    X(SH_NOT_MEMBER, 16, "not_member", "the node is not a member")                                           \
    X(SH_UNAUTHENTICATED, 17, "unauthenticated", "credentials are needed")                                   \
    X(SH_FORBIDDEN, 18, "forbidden", "not allowed")                                                          \
    X(SH_VERSION_MISMATCH, 19, "version_mismatch", "the other side speaks another version")                  \
    X(SH_CLOCK_DRIFT, 20, "clock_drift", "the clock is too far from the other members' clocks")              \
    X(SH_INTERNAL, 21, "internal", "a fault inside Shanghai; its log says more")

enum sh_error {
#define SH_ERROR_ENUM(symbol, value, name, text) symbol = value,
    SH_ERRORS(SH_ERROR_ENUM)
#undef SH_ERROR_ENUM
};

/* The stable name ("not_found"); "unknown" for a value outside the list. A static string. */
const char *sh_error_name(enum sh_error error);

/* One sentence for people, without a full stop. A static string. */
const char *sh_error_text(enum sh_error error);

#ifdef __cplusplus
}
#endif
#endif
