"""The link on its own: a far end that is killed, stopped, crowded, or spoken to by strangers.

SHANGHAI_LINK_KILLS sets how many kills there are in all (300)."""
import json
import os
import random
import shutil
import struct
import subprocess
import tempfile
import time
import unittest

from shanghai import BIN, free_port, wait_for
from wire import PUSH, REQ, Wire, greeting

KILLS = int(os.environ.get("SHANGHAI_LINK_KILLS", "300"))
MIB = 1 << 20
# nng 1.5.2 leaks a message now and then when the peer is killed while it is being sent (nng #1713).
NO_LEAK_CHECK = dict(os.environ, ASAN_OPTIONS="detect_leaks=0:" + os.environ.get("ASAN_OPTIONS", ""))
SANITIZED = any(name in BIN for name in ("asan", "tsan"))


class InDirectory(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="sh", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def endpoint(self, kind):
        return f"ipc://{self.dir}/link" if kind == "ipc" else f"tcp://127.0.0.1:{free_port(2)}"


def run(program, *arguments, timeout):
    """Runs it to its end and returns what it printed as JSON."""
    done = subprocess.run([f"{BIN}/{program}", *map(str, arguments)], env=NO_LEAK_CHECK, timeout=timeout,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{program} {arguments}: exit {done.returncode}\n{done.stdout}{done.stderr[-8000:]}")
    return json.loads(done.stdout)


class Kills(InDirectory):
    """Every request is answered once and in order: link_kills exits with an error when one isn't, or on a hang."""

    def kill(self, kind, size):
        kills = max(1, KILLS // 4)
        result = run("link_kills", "-s", size, "-k", kills, f"{BIN}/link_far", self.endpoint(kind),
                     timeout=60 + kills * 2)
        self.assertEqual(result["kills"], kills)
        self.assertEqual(result["closes_that_hang"], 0)
        print(f"\nfigure: {kind}, {size} B, 64 outstanding: {kills} kills, back after median "
              f"{result['recover_median_ms']} ms, p99 {result['recover_p99_ms']} ms, max {result['recover_max_ms']} ms",
              flush=True)

    def test_killed_far_end_over_ipc_with_large_requests(self):
        self.kill("ipc", 13000)

    def test_killed_far_end_over_ipc_with_small_requests(self):
        self.kill("ipc", 200)

    def test_killed_far_end_over_tcp_with_large_requests(self):
        self.kill("tcp", 13000)

    def test_killed_far_end_over_tcp_with_small_requests(self):
        self.kill("tcp", 200)


class Breaks(InDirectory):
    def test_pipeline_that_breaks_off_while_nng_adds_it_or_sends_over_it(self):
        """nng 1.5.2 keeps using such a connection after it was freed; the program makes that a crash."""
        result = run("link_breaks", "-n", 2000, f"{self.dir}/link", timeout=120)
        self.assertGreater(result["connected"], 1000)


class Stops(InDirectory):
    def stop(self, kind, times, pause_ms):
        result = run("link_kills", "-s", 200, "-k", times, "-p", pause_ms, f"{BIN}/link_far", self.endpoint(kind),
                     timeout=60 + times * pause_ms / 500)
        self.assertEqual(result["closes_that_hang"], 0)
        print(f"\nfigure: {kind}, stopped {times} times for {pause_ms} ms, back after max {result['recover_max_ms']} ms",
              flush=True)
        return result

    def test_stopped_far_end_over_ipc(self):
        self.stop("ipc", 10, 200)

    def test_stopped_far_end_over_tcp(self):
        self.stop("tcp", 10, 200)

    def test_far_end_stopped_until_sockets_are_replaced(self):
        """Longer than a poll may take: fresh sockets wait in the backlog of a listener that does not accept."""
        self.assertGreater(self.stop("ipc", 1, 9000)["replacements"], 0)


class Echo:
    """A far end."""

    def __init__(self, *endpoints):
        self.process = subprocess.Popen([f"{BIN}/link_far", "-i", *endpoints], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=NO_LEAK_CHECK, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise AssertionError("link_far did not start")

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        self.process.stdin.close()
        self.process.stdout.close()

    def stats(self):
        self.process.stdin.write("stats\n")
        self.process.stdin.flush()
        for line in self.process.stdout:  # requests that nobody answers, sessions that were dropped
            if line.startswith("stats "):
                return dict(zip(("sessions", "clients", "parked", "held_bytes", "requests", "answers", "refused",
                                 "dropped"), map(int, line.split()[1:])))
        raise AssertionError("the far end has ended")

    def memory(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM")


# ---- as much msgpack as it takes to speak to the far end by hand ----

POLL, READ = 1, 34


def raw(endpoint, protocol, greet=True):
    if endpoint.startswith("ipc://"):
        return Wire(endpoint[len("ipc://"):] + (".in" if protocol == PUSH else ".out"), protocol, greet)
    host, port = endpoint[len("tcp://"):].split(":")
    return Wire((host, int(port) + (protocol == REQ)), protocol, greet)


def uint(value):
    return b"\xcf" + struct.pack(">Q", value)


def message(kind, session, number, previous, fields):
    """[1, kind, 0, nil, "", [session, number, previous], {fields}]"""
    body = bytes([0x80 + len(fields)]) + b"".join(uint(key) + value for key, value in fields.items())
    return (b"\x97\x01" + uint(kind) + b"\x00\xc0\xa0\x93\xc4\x10" + session + uint(number) + uint(previous) + body)


def read_request(session, number, size):
    """The far end answers a `read` with max_bytes of zeros."""
    return message(READ, session, number, number - 1,
                   {2: uint(1), 3: uint(size), 4: uint(1), 5: uint(0)})


def poll(session):
    return message(POLL, session, 0, 0, {1: uint(0), 2: uint(0), 3: uint(0)})


class Crowd(InDirectory):
    CLIENTS = 60 if SANITIZED else 200

    def crowd(self, endpoint):
        """Each client gets its 100 answers, or link_crowd exits with an error."""
        return run("link_crowd", "-c", self.CLIENTS, "-n", 100, endpoint, timeout=120)

    def check(self, kind):
        """One asks for 256 answers of 1 MiB and never polls; one polls and never reads what comes; one polls, reads, and
        never says so. The others are served."""
        endpoint = self.endpoint(kind)
        far_end = Echo(endpoint)
        self.addCleanup(far_end.close)
        alone = self.crowd(endpoint)
        bad = []
        for misbehaviour in ("never polls", "never reads", "never acknowledges"):
            session = random.randbytes(16)
            push, req = raw(endpoint, PUSH), raw(endpoint, REQ)
            bad += [push, req]
            for number in range(1, 257):
                push.send(read_request(session, number, MIB))
            if misbehaviour != "never polls":
                for _ in range(40):
                    req.send(poll(session))
                    if misbehaviour == "never acknowledges":
                        req.receive()
        crowded = self.crowd(endpoint)
        stats, memory = far_end.stats(), far_end.memory()
        print(f"\nfigure: {kind}, {self.CLIENTS} clients: {alone['rate']:.0f}/s, p99 {alone['p99_ms']} ms; beside three that do "
              f"not read: {crowded['rate']:.0f}/s, p99 {crowded['p99_ms']} ms, far end at most {memory / MIB:.0f} MiB",
              flush=True)
        for connection in bad:
            connection.close()
        self.assertEqual(crowded["answers"], self.CLIENTS * 100)
        self.assertGreater(stats["dropped"], 0)
        self.assertLessEqual(stats["held_bytes"], 50 * MIB)
        if not SANITIZED:
            self.assertLess(memory, 256 * MIB)
        far_end.close()
        self.assertEqual(far_end.process.returncode, 0)

    def test_those_who_do_not_read_disturb_nobody_over_ipc(self):
        self.check("ipc")

    def test_those_who_do_not_read_disturb_nobody_over_tcp(self):
        self.check("tcp")


class Strangers(InDirectory):
    """Bytes on the sockets themselves. Over ipc a connection that ends at once may end the listener (nng #1518), which is
    the service's self-ping to notice; so those stay open until the end."""

    def noise(self, endpoint, protocol, data):
        connection = raw(endpoint, protocol, greet=False)
        try:
            connection.socket.sendall(data)
            connection.socket.settimeout(0.02)
            connection.socket.recv(100)
        except OSError:
            pass
        return connection

    def check(self, kind):
        endpoint = self.endpoint(kind)
        far_end = Echo(endpoint)
        self.addCleanup(far_end.close)
        random.seed(7)
        prefix = b"\1" if kind == "ipc" else b""
        hello = b"\x80\0\0\1" + poll(b"s" * 16)
        before = far_end.memory()
        opened = []
        for protocol in (PUSH, REQ):
            own, other = greeting(protocol), greeting(PUSH + REQ - protocol)
            for data in (b"GET / HTTP/1.0\r\n\r\n", random.randbytes(300), own[:5], other,
                         own + prefix + b"\xff" * 8, own + prefix + struct.pack(">Q", 1 << 40) + b"x" * 100,
                         own + prefix + struct.pack(">Q", 100) + b"x" * 10,
                         own + prefix + struct.pack(">Q", 0), own + prefix + struct.pack(">Q", 3) + b"abc",
                         own + prefix + struct.pack(">Q", 200) + b"\x91" * 200,
                         own + prefix + struct.pack(">Q", 5) + b"\xdd\xff\xff\xff\xff",
                         own + prefix + struct.pack(">Q", len(hello)) + hello):
                opened.append(self.noise(endpoint, protocol, data))
        push = raw(endpoint, PUSH)
        for _ in range(2000):
            push.send(random.randbytes(random.randrange(1, 2000)))
        wait_for(lambda: far_end.stats()["refused"] >= 2000, "the noise to be refused")
        run("link_crowd", "-c", 5, "-n", 500, endpoint, timeout=120)
        if not SANITIZED:
            self.assertLess(far_end.memory() - before, 16 * MIB)
        for connection in opened + [push]:
            connection.close()
        run("link_crowd", "-c", 5, "-n", 500, endpoint, timeout=120)
        far_end.close()
        self.assertEqual(far_end.process.returncode, 0)

    def test_bytes_of_strangers_leave_it_answering_over_ipc(self):
        self.check("ipc")

    def test_bytes_of_strangers_leave_it_answering_over_tcp(self):
        self.check("tcp")


if __name__ == "__main__":
    unittest.main()
