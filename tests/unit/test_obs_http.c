/* What the HTTP server makes of requests: its handler here tells what it was handed. Bad ones:
 * tests/system/test_obs_http.py.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "obs_http.h"

static struct obs_http *server;

static void tell(void *arg, const struct obs_http_request *r, struct obs_http_response *response)
{
    const char *name = obs_http_argument(r, "name");
    (void)arg;
    response->status = strcmp(r->path, "/status") == 0 ? 401 : 200;
    response->allow = "GET, POST";
    response->policy = "default-src 'none'";
    response->age_ms = 7;
    response->content_type = "text/plain";
    buf_printf(&response->body, "%s %s name=%s token=%s correlation=%" PRIx64 " body=", r->method, r->path,
               name != NULL ? name : "-", r->token != NULL ? r->token : "-", r->correlation);
    buf_append(&response->body, r->body.data, r->body.len);
}

static int open_server(void **state)
{
    const struct obs_http_options options = {.address = "127.0.0.1", .handle = tell};
    (void)state;
    server = obs_http_open(&options);
    return server != NULL ? 0 : -1;
}

static int close_server(void **state)
{
    (void)state;
    obs_http_close(server);
    return 0;
}

/* Everything that comes until the end; the request must ask for one. */
static const char *ask(const char *request)
{
    static struct buf answer;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(obs_http_port(server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ssize_t got;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    buf_free(&answer);
    answer = (struct buf){0};
    while ((got = recv(fd, buf_reserve(&answer, 4096), 4096, 0)) > 0)
        answer.len += (size_t)got;
    close(fd);
    return buf_cstr(&answer);
}

#define END "Host: localhost\r\nConnection: close\r\n\r\n"

static void assert_has(const char *answer, const char *part)
{
    if (strstr(answer, part) == NULL)
        fail_msg("no \"%s\" in: %s", part, answer);
}

static void test_a_path_and_its_arguments_are_decoded_once(void **state)
{
    (void)state;
    assert_has(ask("GET /a%2fb%2541?name=x%26y+z%2525&other=1 HTTP/1.1\r\n" END),
               "GET /a/b%41 name=x&y z%25 ");
    assert_has(ask("GET /?name HTTP/1.1\r\n" END), "GET / name=- ");
    assert_has(ask("GET /?name= HTTP/1.1\r\n" END), "GET / name= ");
}

static void test_the_token_is_handed_on(void **state)
{
    (void)state;
    assert_has(ask("GET / HTTP/1.1\r\nAuthorization: Bearer s3cret\r\n" END), " token=s3cret ");
    assert_has(ask("GET / HTTP/1.1\r\nauthorization: bearer  s3cret\r\n" END), " token=s3cret ");
    assert_has(ask("GET / HTTP/1.1\r\nAuthorization: Basic s3cret\r\n" END), " token=- ");
    assert_has(ask("GET / HTTP/1.1\r\n" END), " token=- ");
}

static void test_a_correlation_id_is_taken_or_made_and_returned(void **state)
{
    uint64_t made, returned;
    (void)state;
    const char *answer = ask("GET / HTTP/1.1\r\nx-correlation-id: 00aBc\r\n" END);
    assert_has(answer, "X-Correlation-Id: 0000000000000abc\r\n");
    assert_has(answer, " correlation=abc ");
    assert_has(ask("GET / HTTP/1.1\r\nX-Correlation-Id: fedcba9876543210\r\n" END),
               "X-Correlation-Id: fedcba9876543210\r\n");
    static const char *const bad[] = {"", "0", "xyz", "0x1", "-1", "1 2", "12345678901234567"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char request[256];
        snprintf(request, sizeof request, "GET / HTTP/1.1\r\nX-Correlation-Id: %s\r\n" END, bad[i]);
        answer = ask(request);
        assert_has(answer, "X-Correlation-Id: ");
        assert_int_equal(
            sscanf(strstr(answer, "X-Correlation-Id: "), "X-Correlation-Id: %" SCNx64, &returned), 1);
        assert_has(answer, " correlation=");
        assert_int_equal(sscanf(strstr(answer, " correlation="), " correlation=%" SCNx64, &made), 1);
        assert_int_equal(made, returned);
        assert_true(made > 0xff && made < UINT64_MAX); /* but for one in 2^56 */
    }
}

static void test_a_body_comes_whole_however_it_was_sent(void **state)
{
    (void)state;
    assert_has(ask("POST /p HTTP/1.1\r\nContent-Length: 5\r\n" END "hello"), "POST /p name=- ");
    assert_has(ask("POST /p HTTP/1.1\r\nContent-Length: 5\r\n" END "hello"), " body=hello");
    assert_has(ask("POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END
                   "3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n"),
               " body=hello");
    const char *answer = ask("PUT /p HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n" END "hello");
    assert_has(answer, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n");
    assert_has(answer, "PUT /p name=- ");
    assert_has(answer, " body=hello");
}

static void test_requests_behind_each_other_are_answered_in_order(void **state)
{
    (void)state;
    const char *answer = ask("GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /2 HTTP/1.1\r\nHost: "
                             "localhost\r\nContent-Length: 3\r\n\r\ntwo"
                             "GET /3 HTTP/1.1\r\n" END);
    const char *first = strstr(answer, "GET /1 "), *second = strstr(answer, "POST /2 "),
               *third = strstr(answer, "GET /3 ");
    assert_true(first != NULL && second != NULL && third != NULL && first < second && second < third);
    assert_has(answer, " body=two");
}

static void test_HEAD_is_GET_without_its_body(void **state)
{
    (void)state;
    char length[64];
    const char *answer = ask("GET / HTTP/1.1\r\nX-Correlation-Id: a\r\n" END);
    snprintf(length, sizeof length, "Content-Length: %zu\r\n", strlen(strstr(answer, "\r\n\r\n")) - 4);
    answer = ask("HEAD / HTTP/1.1\r\nX-Correlation-Id: a\r\n" END);
    assert_has(answer, length);
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
}

static void test_answers_have_their_headers(void **state)
{
    (void)state;
    const char *answer = ask("GET /status HTTP/1.1\r\n" END);
    static const char *const parts[] = {"HTTP/1.1 401 Unauthorized\r\n",
                                        "WWW-Authenticate: Bearer\r\n",
                                        "Allow: GET, POST\r\n",
                                        "Content-Security-Policy: default-src 'none'\r\n",
                                        "X-Age-Ms: 7\r\n",
                                        "Content-Type: text/plain\r\n",
                                        "Cache-Control: no-store\r\n",
                                        "X-Content-Type-Options: nosniff\r\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        assert_has(answer, parts[i]);
}

static void test_a_server_closes_with_connections_open(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char byte;
    int silent = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    open_server(state);
    address.sin_port = htons(obs_http_port(server));
    assert_int_equal(connect(silent, (struct sockaddr *)&address, sizeof address), 0);
    assert_has(ask("GET / HTTP/1.1\r\n" END), "200 OK");
    obs_http_close(server);
    assert_true(recv(silent, &byte, 1, 0) <= 0);
    close(silent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_path_and_its_arguments_are_decoded_once, open_server,
                                        close_server),
        cmocka_unit_test_setup_teardown(test_the_token_is_handed_on, open_server, close_server),
        cmocka_unit_test_setup_teardown(test_a_correlation_id_is_taken_or_made_and_returned, open_server,
                                        close_server),
        cmocka_unit_test_setup_teardown(test_a_body_comes_whole_however_it_was_sent, open_server,
                                        close_server),
        cmocka_unit_test_setup_teardown(test_requests_behind_each_other_are_answered_in_order, open_server,
                                        close_server),
        cmocka_unit_test_setup_teardown(test_HEAD_is_GET_without_its_body, open_server, close_server),
        cmocka_unit_test_setup_teardown(test_answers_have_their_headers, open_server, close_server),
        cmocka_unit_test(test_a_server_closes_with_connections_open),
    };
    log_set_level((enum log_level)(LOG_ERROR + 1));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
