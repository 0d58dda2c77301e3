"""Strangers on every socket: a named error or a closed connection, never the end of a daemon, no growth of memory.

The supervisor's own sockets are in test_supervisor_control.py and test_supervisor.py."""
import contextlib
import json
import os
import random
import resource
import subprocess
import unittest

from shanghai import BIN, SERVICES, Node, process_exists, wait_for
from wire import ERROR, PUSH, REQ, Wire, greeting, message_type

WATCHDOG_MS = 10000  # the default
GREETING_MS = 10000  # nng's: so long a connection waits to be accepted, then it ends
LONG_MS = max(WATCHDOG_MS, GREETING_MS) + 2000
SUPERVISOR = "supervisor: {intensity: 1000, period: 60s, backoff: false}"
SETTINGS = "wal: {segment_size: 4MiB}"
GROWTH_MAX_KIB = (200 if "asan" in BIN or "tsan" in BIN else 16) << 10
DESCRIPTORS = 256
# What a round of garbage leaves behind shows when it comes again and again. The first rounds fill what is kept for good.
ROUNDS, ROUNDS_WARM = 30, 10
LEAK_MAX_KIB = GROWTH_MAX_KIB if GROWTH_MAX_KIB > 16 << 10 else 4 << 10
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


def pss_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss_Anon:"))


class BadInput(unittest.TestCase):
    def setUp(self):
        print(f"\nseed {SEED}")
        self.rng = random.Random(SEED)
        self.node = Node(settings=SETTINGS, supervisor=SUPERVISOR).start()
        self.addCleanup(self.node.close)
        run, port = self.node.run, self.node.port
        self.targets = [(f"{run}/wal.in", PUSH), (f"{run}/wal.out", REQ), (f"{run}/query.in", PUSH),
                        (f"{run}/query.out", REQ), (("127.0.0.1", port), PUSH), (("127.0.0.1", port + 1), REQ),
                        (f"{run}/member.in", PUSH), (f"{run}/member.out", REQ), (("127.0.0.1", port + 2), PUSH),
                        (f"{run}/repl.in", PUSH), (f"{run}/repl.out", REQ), (("127.0.0.1", port + 3), PUSH),
                        (("127.0.0.1", port + 4), REQ), (f"{run}/obs.in", PUSH), (f"{run}/obs.out", REQ)]

    def check_alive(self):
        done = self.node.json("append", "alive")
        self.assertEqual(self.node.ctl("--format", "raw", "read", "--from", str(done["first"]["lsn"])).stdout, b"alive\n")

    def pids(self):
        return {name: self.node.pid(name) for name in SERVICES}

    def check_same(self, pids, memory_kib):
        """The same processes, which have not grown."""
        self.check_alive()
        self.assertEqual(self.pids(), pids, self.node.log_tail())
        for name, pid in pids.items():
            self.assertLess(pss_kib(pid) - memory_kib[name], GROWTH_MAX_KIB, f"{name} has grown")

    def send_all(self, address, protocol, messages):
        """All by one connection, and by a new one when the daemon has closed it. (Many short connections would end
        nng 1.5.2's ipc listener: that has a test of its own.) A poll gets an error by name."""
        stranger = None
        for message in messages:
            try:
                stranger = stranger or Wire(address, protocol)
                stranger.send(message)
                if protocol == REQ:
                    self.assertEqual(message_type(stranger.receive()), ERROR, message)
            except ConnectionError:
                if stranger is not None:
                    stranger.close()
                stranger = None
        if stranger is not None:
            stranger.close()

    def test_garbage_in_messages(self):
        pids = self.pids()
        memory_kib = {name: pss_kib(pid) for name, pid in pids.items()}
        warm_kib = {}
        for sent in range(1, ROUNDS + 1):
            for address, protocol in self.targets:
                self.send_all(address, protocol, bad_messages(self.rng))
                if sent == 1:
                    self.check_same(pids, memory_kib)
            if sent == ROUNDS_WARM:
                self.check_same(pids, memory_kib)
                warm_kib = {name: pss_kib(pid) for name, pid in pids.items()}
        self.check_same(pids, memory_kib)
        grown_kib = {name: pss_kib(pid) - warm_kib[name] for name, pid in pids.items()}
        print(f"KiB grown in {ROUNDS - ROUNDS_WARM} rounds: {grown_kib}")
        self.assertLessEqual(max(grown_kib.values()), LEAK_MAX_KIB, grown_kib)

    def test_announced_sizes_are_not_believed(self):
        pids = self.pids()
        memory_kib = {name: pss_kib(pid) for name, pid in pids.items()}
        for address, protocol in self.targets:
            for size in (1 << 63, 1 << 40, 4 << 30, 64 << 20):
                with Wire(address, protocol) as stranger:
                    with self.assertRaises(ConnectionError):
                        stranger.socket.sendall(stranger.frame(size) + b"x" * 1000)
                        stranger.take(1)
            self.check_same(pids, memory_kib)

    def test_broken_handshakes_and_unfinished_messages(self):
        """They stay open until the end."""
        pids = self.pids()
        memory_kib = {name: pss_kib(pid) for name, pid in pids.items()}
        strangers = []
        for address, protocol in self.targets:
            for hello in (b"", b"\0", greeting(protocol)[:5], greeting(0x10), greeting(PUSH + REQ - protocol),
                          b"GET / HTTP/1.1\r\n\r\n", self.rng.randbytes(100)):
                stranger = Wire(address, protocol, greet=False)
                strangers.append(stranger)
                stranger.socket.sendall(hello)
            for part in (b"\1", b"\1" + bytes(7), b"\xff" * 9):
                stranger = Wire(address, protocol)
                strangers.append(stranger)
                stranger.socket.sendall(part)
            stranger = Wire(address, protocol)
            strangers.append(stranger)
            stranger.socket.sendall(stranger.frame(4000) + bytes(2000))
            self.check_same(pids, memory_kib)
        for stranger in strangers:
            stranger.close()

    def is_lost(self, address, protocol):
        """Whether nng takes no more connections into use: what is sent by a new one is not even read. (It greets even
        then.) The service notices in a few seconds, which ends the wait; to be slow is not to be lost."""
        try:
            with Wire(address, protocol, timeout=20) as stranger:
                for _ in range(100):
                    stranger.send(bytes(4000))
                    if protocol == REQ:
                        stranger.receive()
        except OSError:  # a timeout, or the service has noticed already
            return True
        return False

    def lose(self, address, protocol, pid):
        for _ in range(200):
            with contextlib.suppress(OSError), Wire(address, protocol, greet=False):
                pass
            if self.is_lost(address, protocol) or not process_exists(pid):
                return
        self.skipTest("this nng loses no listener")

    def test_an_ipc_listener_that_nng_has_lost_is_noticed_and_comes_back(self):
        """A connection that ends before it was accepted ends nng 1.5.2's ipc listener (nng #1518). The self-ping notices, and
        the supervisor starts the service again."""
        for targets in ((0, 2, 6, 9, 13), (1, 3, 7, 10, 14)):
            pids, deaths = self.pids(), len(self.node.log_lines("the own link is dead"))
            for name, target in zip(("walsvc", "querysvc", "membersvc", "replsvc", "obssvc"), targets):
                self.lose(*self.targets[target], pids[name])
            for name, pid in pids.items():
                wait_for(lambda old=pid, service=name: self.node.pid(service) != old, f"{name} to be started again", 60)
            self.assertEqual(len(self.node.log_lines("the own link is dead")) - deaths, len(pids))
            self.node.wait_ready()
            self.check_alive()

    @staticmethod
    def crowd(address, protocol, pid):
        """Connections, one accepted after the other, until the daemon has no descriptors left for more; 10 are not accepted."""
        def open_files():
            return len(os.listdir(f"/proc/{pid}/fd"))
        most = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
        strangers = []
        while len(strangers) < 10 or any(accepted for accepted, _ in strangers[-10:]):
            stranger = Wire(address, protocol, greet=False, timeout=60)
            stranger.socket.sendall(greeting(protocol))
            accepted = wait_for(lambda s=stranger: "yes" if s.is_readable() else open_files() >= most and "no", "a greeting")
            strangers.append((accepted == "yes", stranger))
        return [stranger for _, stranger in strangers]

    def test_a_crowd_that_takes_all_descriptors_ends_nobody(self):
        """Clients that were there before are served, files are opened from the reserve, and no self-ping waits to be accepted
        so long that nng gives it up, which might end the listener."""
        resource.prlimit(self.node.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        for name in reversed(SERVICES):  # so that no connection to walsvc ends before it was accepted
            old = self.node.kill(name)
            wait_for(lambda pid=old, service=name: self.node.pid(service) != pid, f"{name} to be started again")
            self.node.wait_ready()
        pids = self.pids()
        for targets in ((0, 8, 9, 4, 13), (1, 7, 10, 3, 14)):
            self.check_crowds(pids, dict(zip(SERVICES, targets)))
        for name in SERVICES:
            self.assertTrue(any(f'"{name}"' in line for line in self.node.log_lines("connections have taken the descriptors")))

    def check_crowds(self, pids, targets):
        with subprocess.Popen(self.node.ctl_command("--format", "json", "append", "-", endpoint=self.node.tcp),
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            lsn = self.node.json("status")["durable_lsn"]
            client.stdin.write(b"early\n" * 1000)
            client.stdin.flush()
            wait_for(lambda: self.node.json("status")["durable_lsn"] > lsn, "the early appends")
            strangers = [one for name, target in targets.items() for one in self.crowd(*self.targets[target], pids[name])]
            uptime_ms = {name: row["uptime_ms"] for name, row in self.node.tree().items()}
            client.stdin.write((b"x" * 1000 + b"\n") * 10000)  # segments of 4 MiB
            client.stdin.close()
            self.assertEqual(client.wait(120), 0)
            self.assertEqual(json.load(client.stdout)["entries"], 11000)
        for name in SERVICES:
            wait_for(lambda n=name: self.node.tree()[n]["uptime_ms"] > uptime_ms[n] + LONG_MS, "a long time")
        for stranger in strangers:
            try:
                stranger.take(8)  # it was accepted; to leave before that might end the listener
            except OSError as error:
                raise AssertionError(f"{error!r}: was a service started again?\n{self.node.log_tail()}") from None
            stranger.close()
        # No client comes before it can be accepted: one that gives up might end the listener.
        for pid in pids.values():
            wait_for(lambda p=pid: len(os.listdir(f"/proc/{p}/fd")) < DESCRIPTORS / 2, "the crowd to be gone")
        self.check_alive()
        self.assertEqual(self.pids(), pids, self.node.log_tail())


if __name__ == "__main__":
    unittest.main()
