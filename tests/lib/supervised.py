"""shanghaid with played services: small programs that do what a test tells them, and a client of the control socket.

A service reads DIR/NAME.json when it starts (see PLAYER) and tells what it does in DIR/events."""
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import uuid

from shanghai import BIN, free_port, process_exists, wait_for

PLAYER = r'''#!/usr/bin/python3 -IS
import json, os, signal, socket, sys, time
home, name = os.path.split(os.path.abspath(__file__))
try:
    with open(os.path.join(home, name + ".json")) as file:
        play = json.load(file)
except FileNotFoundError:
    play = {}

def event(what):
    fd = os.open(os.path.join(home, "events"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{name} {what} {os.getpid()}\n".encode())
    os.close(fd)

def tell(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])

def on_term(number, frame):
    event("term")
    if not play.get("ignores_term"):
        sys.exit(play.get("stop_code", 0))

def on_hup(number, frame):
    event("hup")

if "report" in play:
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file.read().splitlines())
    fds = {fd: os.readlink("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd")
           if os.path.exists("/proc/self/fd/" + fd)}
    with open(play["report"], "w") as file:
        json.dump({"env": dict(os.environ), "fds": fds, "argv": sys.argv, "blocked": status["SigBlk"].strip(),
                   "ignored": status["SigIgn"].strip(), "session": os.getsid(0)}, file)
signal.signal(signal.SIGTERM, on_term)
signal.signal(signal.SIGHUP, on_hup)
event("start")
if play.get("child"):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        event("child")
        time.sleep(600)
        os._exit(0)
if "says" in play:
    os.write(2, play["says"].encode("latin-1"))
for i in range(play.get("lines", 0)):
    os.write(2, f"line {i}\n".encode())
if play.get("closes_output"):
    os.closerange(1, 3)
if "exit" in play:
    sys.exit(play["exit"])
if play.get("stranger") and os.fork() == 0:
    tell("READY=1\nSTATUS=usurped")
    os._exit(0)
if play.get("ready", True):
    tell("READY=1\nSTATUS=" + play.get("status", "at work"))
    event("ready")
if play.get("garbage"):
    for size in (0, 1, 100, 4096, 5000, 60000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(os.urandom(size), os.environ["NOTIFY_SOCKET"])
if "exit_when_ready" in play:
    sys.exit(play["exit_when_ready"])
pause = int(os.environ.get("WATCHDOG_USEC", "20000000")) / 4e6
for i in range(int(600 / pause)):
    time.sleep(pause)
    if i >= play.get("pings", 1 << 30):
        event("silent")
        while True:
            time.sleep(600)
    try:
        tell("WATCHDOG=1")
    except OSError:
        event("alone")  # the supervisor is gone: this process should be, too
'''


class Raw(bytes):
    """msgpack that is packed as it is."""


def pack(value):
    """msgpack, as much as a command needs."""
    if isinstance(value, Raw):
        return bytes(value)
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return struct.pack(">BQ", 0xcf, value)
    if isinstance(value, str):
        data = value.encode()
        return struct.pack(">BI", 0xdb, len(data)) + data
    if isinstance(value, bytes):
        return struct.pack(">BI", 0xc6, len(value)) + value
    if isinstance(value, (list, tuple)):
        return struct.pack(">BI", 0xdd, len(value)) + b"".join(map(pack, value))
    return struct.pack(">BI", 0xdf, len(value)) + b"".join(pack(k) + pack(v) for k, v in value.items())


def unpack(data, at=0):
    """One msgpack value and where it ends."""
    def sized(width, offset=0):
        return int.from_bytes(data[at + 1:at + 1 + width], "big") + offset, at + 1 + width

    def text(length, start):
        return data[start:start + length].decode("utf-8", "replace"), start + length

    def array(length, start):
        out = []
        for _ in range(length):
            value, start = unpack(data, start)
            out.append(value)
        return out, start

    def mapping(length, start):
        flat, start = array(2 * length, start)
        return dict(zip(flat[::2], flat[1::2])), start

    code = data[at]
    if code < 0x80:
        return code, at + 1
    if code < 0x90:
        return mapping(code & 15, at + 1)
    if code < 0xa0:
        return array(code & 15, at + 1)
    if code < 0xc0:
        return text(code & 31, at + 1)
    if code in (0xc0, 0xc2, 0xc3):
        return {0xc0: None, 0xc2: False, 0xc3: True}[code], at + 1
    if code in (0xcc, 0xcd, 0xce, 0xcf):
        return sized(1 << (code - 0xcc))
    if code in (0xc4, 0xc5, 0xc6):
        length, start = sized(1 << (code - 0xc4))
        return data[start:start + length], start + length
    readers = {0xd9: (1, text), 0xda: (2, text), 0xdb: (4, text), 0xdc: (2, array), 0xdd: (4, array),
               0xde: (2, mapping), 0xdf: (4, mapping)}
    width, reader = readers[code]
    return reader(*sized(width))


def command_packet(command, service="", limit=0, version=1, kind=64):
    body = {1: command, 2: service, 3: limit}
    return pack([version, kind, 77, None, "", [bytes(16), 0, 0], body])


class Supervised:
    """One shanghaid in a directory of its own. tree: YAML below `supervisor:`, in which a service's name followed by
    `@` stands for its program: {service: a@}."""

    def __init__(self, tree, env=None, data=None, run=None, settings=""):
        self.dir = tempfile.mkdtemp(prefix="sh", dir="/tmp")
        self.data = data or os.path.join(self.dir, "data")
        self.run = run or os.path.join(self.dir, "run")
        self.config = os.path.join(self.dir, "topology.yaml")
        self.log_path = os.path.join(self.dir, "stderr")
        self.events_path = os.path.join(self.dir, "events")
        self.env = dict(os.environ, **(env or {}))
        self.process = None
        self.port = free_port(6)
        self.tree = tree
        self.write_config(settings)

    def write_config(self, settings="", tree=None):
        tree = tree or self.tree
        names = [word.split("service:")[1].split("@")[0].strip() for word in tree.split("{") if "@" in word]
        for name in names:
            path = os.path.join(self.dir, name)
            if not os.path.exists(path):
                with open(path, "w", encoding="ascii") as file:
                    file.write(PLAYER)
                os.chmod(path, 0o700)
            tree = tree.replace(f"{name}@", f"{name}, program: {path}")
        with open(self.config, "w", encoding="ascii") as file:
            file.write(f"cluster:\n  name: test\n  nodes:\n    - {{id: n1, host: 127.0.0.1, port: {self.port}, "
                       f"admin_port: {self.port + 5}}}\n"
                       f"data_dir: {self.data}\nrun_dir: {self.run}\n{settings}\nsupervisor:\n{tree}\n")

    def play(self, name, **what):
        with open(os.path.join(self.dir, name + ".json"), "w", encoding="ascii") as file:
            json.dump(what, file)

    def start(self, wait=True, stderr=None, **options):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([os.path.join(BIN, "shanghaid"), "--config", self.config, "--node", "n1"],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=stderr or log, env=self.env,
                                            **options)
        if wait:
            self.wait_state("root", "running")
        return self

    def wait_exit(self, timeout=60):
        return self.process.wait(timeout)

    def stop(self, timeout=60):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def wait(self, condition, what, timeout=60):
        """wait_for, with the end of the log when it was in vain."""
        try:
            return wait_for(condition, what, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from None

    # ---- the control socket

    def connect(self, timeout=30):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(timeout)

        def connected():
            try:
                connection.connect(os.path.join(self.run, "supervisor.sock"))
                return True
            except BlockingIOError:  # the backlog is full for a moment
                return False
        try:
            wait_for(connected, "a connection", timeout, 0.001)
        except OSError:
            connection.close()
            raise
        return connection

    def call(self, command, service="", limit=0):
        """The svc_reply's body: {1: code, 2: text, 3: tree, 4: obituaries}."""
        with self.connect() as connection:
            connection.send(command_packet(command, service, limit))
            packet = connection.recv(1 << 20)
        envelope, end = unpack(packet)
        assert end == len(packet) and envelope[0] == 1 and envelope[1] == 65 and envelope[2] == 77, envelope
        return envelope[6]

    def nodes(self):
        return {node["name"]: node for node in self.call("tree")[3]}

    def node(self, name):
        try:
            return self.nodes()[name]
        except OSError:
            return {"state": "unreachable", "pid": 0}

    def wait_state(self, name, state, timeout=60):
        def arrived():
            node = self.node(name)
            if self.process.poll() is not None:
                raise AssertionError(f"shanghaid ended with {self.process.returncode}")
            return node if node["state"] == state else None
        return self.wait(arrived, f"{name} to be {state}", timeout)

    def wait_new_pid(self, name, old, timeout=60):
        def changed():
            node = self.node(name)
            return node if node["state"] == "running" and node["pid"] != old else None
        return self.wait(changed, f"{name} to be back", timeout)

    def obituaries(self, service="", limit=0):
        return self.call("obituary", service, limit)[4]

    def kill(self, name, number=signal.SIGKILL):
        pid = self.wait(lambda: self.node(name)["pid"], f"{name} to run")  # 0 would be the test itself
        os.kill(pid, number)
        return pid

    # ---- what was told

    def events(self):
        """[(service, what, pid)] in order."""
        try:
            with open(self.events_path, encoding="ascii") as file:
                return [(line.split()[0], line.split()[1], int(line.split()[2])) for line in file if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def story(self):
        return [f"{name} {what}" for name, what, _ in self.events()]

    def wait_event(self, text, count=1, timeout=60):
        self.wait(lambda: self.story().count(text) >= count, f"{count} of '{text}'", timeout)

    def maps(self):
        with open(f"/proc/{self.process.pid}/maps", encoding="ascii") as file:
            return file.read()

    def log_text(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def log_tail(self):
        return "\n".join(self.log_text().splitlines()[-15:])

    def logged(self, text):
        return [line for line in self.log_text().splitlines() if text in line]

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)
        for pid in {pid for _, _, pid in self.events()}:
            if process_exists(pid) and self.is_ours(pid):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.dir, ignore_errors=True)

    def is_ours(self, pid):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return self.dir.encode() in file.read()
        except OSError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


class SystemdSocket:
    """Plays systemd's end of the notify protocol."""

    def __init__(self):
        self.path = f"/tmp/sh{uuid.uuid4().hex[:8]}.n"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.lines = []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        """All the time: a full queue makes sd_notify wait."""
        while data := self.socket.recv(65536):
            self.lines += data.decode().splitlines()

    def count(self, text):
        return sum(line.startswith(text) for line in list(self.lines))

    def wait_line(self, text, count=1):
        wait_for(lambda: self.count(text) >= count, f"'{text}' among {self.lines}")

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.path)
        self.reader.join(20)
        self.socket.close()
        os.unlink(self.path)
