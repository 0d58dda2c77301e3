/* A JSON writer: objects and arrays nest, commas come by themselves. Numbers of 64 bits are written in full.
 */
#ifndef JSON_WRITER_H
#define JSON_WRITER_H

#include "buf.h"

struct json_writer {
    struct buf out;
    bool comma;
};
void json_open(struct json_writer *j, const char *key, char bracket);
void json_close(struct json_writer *j, char bracket);
void json_text(struct json_writer *j, const char *key, const char *text);
void json_slice(struct json_writer *j, const char *key, struct slice text);
void json_uint(struct json_writer *j, const char *key, uint64_t number);
void json_int(struct json_writer *j, const char *key, int64_t number);
void json_real(struct json_writer *j, const char *key, double number, int digits);
/* As short as it can be with 15 digits; null when it is not finite. */
void json_double(struct json_writer *j, const char *key, double number);
/* A value, or members without braces, that are JSON already. */
void json_raw(struct json_writer *j, const char *key, struct slice text);
void json_bool(struct json_writer *j, const char *key, bool value);
void json_null(struct json_writer *j, const char *key);
void json_uuid(struct json_writer *j, const char *key, const uint8_t id[16]);
/* A field with that name for UTF-8, else <name>_base64. */
void json_bytes(struct json_writer *j, const char *key, struct slice bytes);
/* One msgpack value. */
struct mp;
bool json_msgpack(struct json_writer *j, const char *key, struct mp *m);
/* Writes it and a newline to stdout, and frees it. */
void json_print(struct json_writer *j);

#endif
