"""Strangers on every socket: a named error or a closed connection, never the end of a daemon, no growth of memory.

Speaks nng's wire formats by hand (SP handshake; tcp: 8-byte length; ipc: a type byte and 8-byte length)."""
import os
import random
import socket
import struct
import unittest

from shanghai import Node, wait_for

PUSH, REQ = 0x50, 0x30
SUPERVISOR = "supervisor: {intensity: 1000, period: 60s, backoff: false}"
SEED = int(os.environ.get("SHANGHAI_SEED", random.SystemRandom().randrange(1 << 32)))


def envelope(body, version=1, kind=4, number=1):
    """A minimal message: [version, type, 0, nil, "", [session, number, 0], body]."""
    session = bytes([0xc4, 16]) + bytes(range(16))
    return bytes([0x97, version, kind, 0, 0xc0, 0xa0, 0x93]) + session + bytes([number, 0]) + body


def bad_messages(rng):
    yield b""
    yield b"\x00"
    for size in (1, 7, 64, 1000, 60000):
        yield rng.randbytes(size)
    good = envelope(b"\x81\x01\xc4\x01x")
    for cut in range(len(good)):
        yield good[:cut]
    yield envelope(b"\x80", version=2)
    yield envelope(b"\x80", version=127)
    yield envelope(b"\x91" * 5000 + b"\xc0")
    yield envelope(b"\x81\x01\xdd\xff\xff\xff\xff")
    yield envelope(b"\xdf\xff\xff\xff\xff")
    yield b"\xdd\xff\xff\xff\xff" * 31
    for kind in (1, 2, 3, 16, 18, 32, 34, 36, 38, 64, 99):
        yield envelope(b"\x80", kind=kind)
        yield envelope(b"\x81\x06\xc6\xff\xff\xff\xff", kind=kind)
        yield envelope(b"\x81\x01" + bytes([0xcf]) + b"\xff" * 8, kind=kind)
    for _ in range(200):
        mutated = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        yield bytes(mutated)


class Stranger:
    """A connection that has shaken hands as PUSH or REQ."""

    def __init__(self, address, protocol):
        self.is_ipc = isinstance(address, str)
        self.socket = socket.socket(socket.AF_UNIX if self.is_ipc else socket.AF_INET)
        self.socket.settimeout(5)
        self.socket.connect(address)
        self.socket.sendall(b"\0SP\0" + struct.pack(">HH", protocol, 0))
        self.protocol = protocol
        hello = b""
        while len(hello) < 8:
            part = self.socket.recv(8 - len(hello))
            if not part:
                raise ConnectionError("closed during the handshake")
            hello += part

    def frame(self, length):
        return (b"\x01" if self.is_ipc else b"") + struct.pack(">Q", length)

    def send(self, message):
        if self.protocol == REQ:
            message = struct.pack(">I", 0x80000001) + message
        self.socket.sendall(self.frame(len(message)) + message)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


def pss_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss_Anon:"))


class BadInput(unittest.TestCase):
    def setUp(self):
        print(f"\nseed {SEED}")
        self.rng = random.Random(SEED)
        self.node = Node(supervisor=SUPERVISOR).start()
        self.addCleanup(self.node.close)
        self.targets = [(f"{self.node.run}/wal.in", PUSH), (f"{self.node.run}/wal.out", REQ),
                        (f"{self.node.run}/query.in", PUSH), (f"{self.node.run}/query.out", REQ),
                        (("127.0.0.1", self.node.port), PUSH), (("127.0.0.1", self.node.port + 1), REQ)]

    def check_alive(self):
        done = self.node.json("append", "alive")
        self.assertEqual(self.node.ctl("--format", "raw", "read", "--from", str(done["first"]["lsn"])).stdout, b"alive\n")

    @staticmethod
    def send_all(address, protocol, messages):
        """All by one connection, and by a new one when the daemon has closed it. (Many short connections would end
        nng 1.5.2's ipc listener: that has a test of its own.)"""
        stranger = None
        for message in messages:
            try:
                stranger = stranger or Stranger(address, protocol)
                stranger.send(message)
                if protocol == REQ:
                    stranger.socket.settimeout(0.02)
                    stranger.socket.recv(65536)
            except TimeoutError:
                pass
            except OSError:
                stranger.close()
                stranger = None
        if stranger is not None:
            stranger.close()

    def test_garbage_in_messages(self):
        pids = {name: self.node.pid(name) for name in ("walsvc", "querysvc")}
        before = {name: pss_kib(pid) for name, pid in pids.items()}
        for address, protocol in self.targets:
            self.send_all(address, protocol, bad_messages(self.rng))
            self.check_alive()
        for name, pid in pids.items():
            self.assertEqual(self.node.pid(name), pid, f"{name} was restarted:\n{self.node.log_tail()}")
            self.assertLess(pss_kib(pid) - before[name], 40 << 10, f"{name} has grown")

    def test_announced_sizes_are_not_believed(self):
        pids = {name: self.node.pid(name) for name in ("walsvc", "querysvc")}
        for address, protocol in self.targets:
            for size in (1 << 63, 1 << 40, 4 << 30, 64 << 20):
                with Stranger(address, protocol) as stranger:
                    stranger.socket.sendall(stranger.frame(size) + b"x" * 1000)
                    try:
                        self.assertEqual(stranger.socket.recv(1), b"")
                    except ConnectionError:
                        pass
        self.check_alive()
        for name, pid in pids.items():
            self.assertEqual(self.node.pid(name), pid)
            self.assertLess(pss_kib(pid), 100 << 10)

    def test_broken_handshakes_on_tcp(self):
        pid = self.node.pid("querysvc")
        for port in (self.node.port, self.node.port + 1):
            for hello in (b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", self.rng.randbytes(100), b"\0SP\0\0\x10\0\0"):
                with socket.create_connection(("127.0.0.1", port), 5) as stranger:
                    stranger.sendall(hello)
        self.check_alive()
        self.assertEqual(self.node.pid("querysvc"), pid)

    def test_an_ipc_listener_that_nng_lost_comes_back(self):
        """Connecting to an ipc socket and closing at once can end nng 1.5.2's listener; the self-ping notices."""
        for name in ("wal.in", "wal.out", "query.in", "query.out"):
            for _ in range(50):
                with socket.socket(socket.AF_UNIX) as stranger:
                    stranger.settimeout(5)
                    try:
                        stranger.connect(f"{self.node.run}/{name}")
                    except OSError:
                        pass

        def answers():
            return self.node.ctl("--timeout", "2s", "append", "x", check=False).returncode == 0
        wait_for(answers, "the node to mend itself", 60)
        self.check_alive()


if __name__ == "__main__":
    unittest.main()
