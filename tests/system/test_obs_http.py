"""What a client of HTTP may do wrong: it gets a named answer or is closed; obssvc stays, and others are served meanwhile."""
import json
import resource
import select
import socket
import struct
import time
import unittest

from shanghai import Node, wait_for

HOST, END = b"Host: localhost\r\n", b"Host: localhost\r\nConnection: close\r\n\r\n"
BODY_MAX, HEADERS_MAX, CONNECTIONS = 64 << 10, 32 << 10, 256  # obs_http.h
GET = b"GET /health HTTP/1.1\r\n"
POST = b"POST /health HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"1000\r\n" + b"c" * 0x1000 + b"\r\n"
MIB = 1 << 20
TIMEOUT_S = 60

# Request: (status, code of the error). Where the code is "", libmicrohttpd answers, in HTML.
ANSWERS = {
    "good": (GET + END, 200, None),
    "percent-encoded": (b"GET /%68ealth HTTP/1.1\r\n" + END, 200, None),
    "absolute": (b"GET http://x/health HTTP/1.1\r\n" + END, 400, "bad_request"),
    "encoded twice": (b"GET /%2568ealth HTTP/1.1\r\n" + END, 404, "not_found"),
    "NUL": (b"GET /health%00 HTTP/1.1\r\n" + END, 400, "bad_request"),
    "NUL in the query": (b"GET /health?a=%00 HTTP/1.1\r\n" + END, 400, "bad_request"),
    "no digits": (b"GET /health%zz HTTP/1.1\r\n" + END, 400, "bad_request"),
    "half a code": (b"GET /health%6 HTTP/1.1\r\n" + END, 400, "bad_request"),
    "no slash": (b"GET health HTTP/1.1\r\n" + END, 400, "bad_request"),
    "dots": (b"GET /../../etc/passwd HTTP/1.1\r\n" + END, 404, "not_found"),
    "unknown": (b"GET /nothing HTTP/1.1\r\n" + END, 404, "not_found"),
    "not UTF-8": (b"GET /%ff%c0%80 HTTP/1.1\r\n" + END, 404, "not_found"),
    "wrong method": (b"DELETE /health HTTP/1.1\r\n" + END, 405, "method_not_allowed"),
    "no method": (b"BREW /health HTTP/1.1\r\n" + END, 405, "method_not_allowed"),
    "star": (b"OPTIONS * HTTP/1.1\r\n" + END, 400, "bad_request"),
    "headers that fit": (GET + b"X: " + b"x" * (HEADERS_MAX - 1024) + b"\r\n" + END, 200, None),
    "headers": (GET + b"X: " + b"x" * HEADERS_MAX + b"\r\n" + END, 431, "headers_too_large"),
    "line": (b"GET /health?" + b"x" * HEADERS_MAX + b" HTTP/1.1\r\n" + END, 431, "headers_too_large"),
    "1 MiB of headers": (GET + b"X: " + b"x" * MIB + b"\r\n" + END, 431, ""),
    "a million small headers": (GET + b"a:b\r\n" * 1000000 + END, 431, ""),
    "1 MiB of a line": (b"GET /" + b"x" * MIB + b" HTTP/1.1\r\n" + END, 414, ""),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 \r\n\r\n", 400, ""),
    "no HTTP": (b"hello\x00 world\r\n\r\n", 400, ""),
    "another HTTP": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, ""),
    "no Host": (GET + b"\r\n", 400, ""),
    "a name that is resolved to loopback": (GET + b"Host: evil.example\r\n\r\n", 403, "host_not_allowed"),
    "a name that only ends like it": (GET + b"Host: evillocalhost:9090\r\n\r\n", 403, "host_not_allowed"),
    "an address that goes on as a name": (GET + b"Host: 127.0.0.1.evil.example\r\n\r\n", 403, "host_not_allowed"),
    "no header": (GET + b"nonsense\r\n" + END, 400, ""),
    "length": (POST + b"Content-Length: %d\r\n\r\n" % (BODY_MAX + 1) + b"b" * (BODY_MAX + 1), 413, "too_large"),
    "length of 10 MiB": (POST + b"Content-Length: %d\r\n\r\n" % (10 * MIB) + b"b" * 10 * MIB, 413, "too_large"),
    "length without its body": (POST + b"Content-Length: 1000000\r\n\r\n", 413, "too_large"),
    "length that is waited for": (POST + b"Expect: 100-continue\r\nContent-Length: 1000000\r\n\r\n", 413, "too_large"),
    "length that fits": (POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % BODY_MAX + b"b" * BODY_MAX, 405,
                         "method_not_allowed"),
    "negative length": (POST + b"Content-Length: -1\r\n\r\n", 400, ""),
    "length that is none": (POST + b"Content-Length: 1x\r\n\r\n", 400, ""),
    "length of 2^70": (POST + b"Content-Length: 1180591620717411303424\r\n\r\n", 413, ""),
    "chunks": (CHUNKED + CHUNK * 17 + b"0\r\n\r\n", 413, "too_large"),
    "chunks without end": (CHUNKED + CHUNK * 4000, 413, "too_large"),
    "small chunks without end": (CHUNKED + b"1\r\nc\r\n" * MIB, 413, "too_large"),
    "chunk that is none": (CHUNKED + b"zz\r\nc\r\n0\r\n\r\n", 400, ""),
    "chunk of 2^72": (CHUNKED + b"1000000000000000000\r\nc\r\n0\r\n\r\n", 413, ""),
    "coding": (POST + b"Transfer-Encoding: gzip\r\n\r\nbody", 501, "not_implemented"),
}


class Client:
    def __init__(self, test, port):
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        test.addCleanup(self.socket.close)

    def send(self, request):
        """False: the connection was closed meanwhile."""
        try:
            self.socket.sendall(request)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def take_all(self):
        """What comes until the connection's end."""
        got = b""
        try:
            while part := self.socket.recv(MIB):
                got += part
        except ConnectionResetError:  # it had sent more than was read
            pass
        return got

    def take(self, end):
        got = b""
        while not got.endswith(end):
            part = self.socket.recv(1)
            assert part, got
            got += part
        return got

    def is_closed(self):
        """Of one that has asked for nothing."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))


class Http(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node().start()
        cls.port = cls.node.port + 5
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def setUp(self):
        self.pid = self.node.pid("obssvc")

    def tearDown(self):
        self.assert_serves()
        self.assertEqual(self.node.pid("obssvc"), self.pid, self.node.log_tail())

    def connect(self):
        return Client(self, self.port)

    def ask(self, request):
        client = self.connect()
        client.send(request)
        return client.take_all()

    def assert_serves(self):
        self.assertIn(b'{"status":"alive"}', self.ask(GET + END))

    def test_each_request_has_its_answer(self):
        for name, (request, status, code) in ANSWERS.items():
            with self.subTest(name):
                head, _, body = self.ask(request).partition(b"\r\n\r\n")
                self.assertTrue(head.startswith(b"HTTP/1.1 %d " % status), (head, body))
                self.assertIn(b"connection: close", head.lower())
                if code:
                    self.assertEqual(json.loads(body)["error"]["code"], code)
                    self.assertEqual(json.loads(body)["error"]["details"], {})
                    self.assertIn(b"X-Correlation-Id: ", head)
                elif code == "":
                    self.assertIn(b"<html>", body)

    def test_clients_that_go_in_the_middle_of_a_request(self):
        whole = POST + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello"
        for length in range(len(whole) + 1):
            client = self.connect()
            client.send(whole[:length])
            client.socket.close()
        for length in range(len(CHUNKED) + 20):
            client = self.connect()
            client.send((CHUNKED + CHUNK)[:length])
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.socket.close()  # as a reset

    def test_many_requests_behind_each_other(self):
        client = self.connect()
        client.send((GET + HOST + b"\r\n" + b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n") * 100 + GET + END)
        got = client.take_all()
        self.assertEqual((got.count(b" 200 OK\r\n"), got.count(b" 404 Not Found\r\n")), (101, 100))

    def test_a_bad_request_behind_a_good_one(self):
        got = self.ask(GET + HOST + b"\r\n" + POST + b"Content-Length: 99999999\r\n\r\n" + GET + END)
        self.assertEqual((got.count(b" 200 OK\r\n"), got.count(b" 413 Content Too Large\r\n")), (1, 1))
        self.assertEqual(got.count(b"HTTP/1.1 "), 2)

    def test_HEAD_has_no_body(self):
        got = self.ask(b"HEAD /metrics HTTP/1.1\r\n" + END)
        self.assertTrue(got.startswith(b"HTTP/1.1 200 OK\r\n") and got.endswith(b"\r\n\r\n"), got)

    def test_a_body_waits_for_100_continue(self):
        client = self.connect()
        client.send(POST + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        self.assertEqual(client.take(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"hello")
        self.assertTrue(client.take_all().startswith(b"HTTP/1.1 405 "))

    def test_a_thousand_idle_connections_give_way_to_others(self):
        idle = [self.connect() for _ in range(1000)]
        for _ in range(20):
            self.assert_serves()
        wait_for(lambda: sum(client.is_closed() for client in idle) >= len(idle) - CONNECTIONS, "the oldest to be closed",
                 TIMEOUT_S)
        self.assertTrue(idle[0].is_closed())

    def test_who_asks_again_and_again_is_not_closed_for_the_idle_ones(self):
        busy = self.connect()
        for _ in range(3 * CONNECTIONS):
            self.connect()
            self.assertTrue(busy.send(GET + HOST + b"\r\n"))
            self.assertTrue(busy.take(b'{"status":"alive"}\n'))

    def test_who_sends_byte_by_byte_is_closed_in_the_end(self):
        """Never idle, and never ready."""
        slow = [(self.connect(), begin) for begin in (b"GET /", GET + b"X: ", POST + b"Content-Length: 1000\r\n\r\n")]
        chunked = self.connect()
        for client, begin in slow:
            client.send(begin)
        chunked.send(CHUNKED)

        def all_closed():
            sent = [client.send(b"a") for client, _ in slow] + [chunked.send(b"1\r\na\r\n")]
            self.assert_serves()
            return not any(sent)
        wait_for(all_closed, "slow senders to be closed", 120, 1)

    def test_who_does_not_read_is_closed_in_the_end(self):
        """Answers fill all the buffers there are, and then wait."""
        client = self.connect()
        client.socket.setblocking(False)
        poll = select.poll()
        poll.register(client.socket, select.POLLOUT)
        request = b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n"
        wanted = memoryview(request * 1000)
        end = time.monotonic() + 120

        def is_closed():
            nonlocal wanted
            try:
                while True:
                    wanted = wanted[client.socket.send(wanted):] or memoryview(request * 1000)
            except BlockingIOError:
                self.assert_serves()
                return poll.poll(0) and poll.poll(0)[0][1] & (select.POLLHUP | select.POLLERR)
            except (BrokenPipeError, ConnectionResetError):
                return True
        wait_for(is_closed, "it to be closed", end - time.monotonic(), 1)

    def metric(self, series):
        for line in self.ask(b"GET /metrics HTTP/1.1\r\n" + END).decode().splitlines():
            if line.startswith(series + " "):
                return float(line.split()[-1])
        return None

    def test_requests_are_counted(self):
        series = ('shanghai_http_requests_total{class="2xx"}', 'shanghai_http_requests_total{class="4xx"}',
                  "shanghai_http_request_seconds_count")
        before = wait_for(lambda: (lambda all_three: None not in all_three and all_three)(list(map(self.metric, series))),
                          "metrics of obssvc")
        for _ in range(10):
            self.ask(GET + END)
            self.ask(b"GET /nothing HTTP/1.1\r\n" + END)
            self.ask(CHUNKED + CHUNK * 20)
        for name, value, more in zip(series, before, (10, 20, 20)):
            wait_for(lambda name=name, least=value + more: (self.metric(name) or 0) >= least, name)


if __name__ == "__main__":
    unittest.main()
