"""A private Redis as the peer: own port on loopback, own directory, started and ended here, gone afterwards.

It is set to promise what we promise (`appendonly yes`, `appendfsync always`) and to do nothing else beside it: no
snapshots, no rewrites of its file."""
import csv
import io
import os
import shutil
import socket
import subprocess
import tempfile
import time

from shanghai import free_port, wait_for

PACKAGE = "redis-server"
PROGRAMS = ("redis-server", "redis-benchmark")
STREAM = "bench"
CALIBRATE = 20000  # entries
CLIENTS = 50
PIPELINE = 100


FILL = 10_000  # keys of one script


def take_scan(connection):
    """(cursor, how many keys) of an answer: *2, $length, cursor, *count, and two lines for each key."""
    data, lines = b"", 4
    while data.count(b"\r\n") < lines:
        got = connection.recv(1 << 20)
        if not got:
            raise OSError("redis-server closed the connection")
        data += got
        head = data.split(b"\r\n", 4)
        if len(head) == 5:
            lines = 4 + 2 * int(head[3][1:])
    return head[2], int(head[3][1:])


class Missing(Exception):
    """A program that has to be installed first."""


def need_programs():
    for program in PROGRAMS:
        if shutil.which(program) is None:
            raise Missing(f"{program} is missing: apt-get install {PACKAGE} (Debian's package), or leave Redis out "
                          "with --only")


class Redis:
    """As a context: runs from its start to the end of the block. parent: a directory on the disk to measure."""

    def __init__(self, parent):
        need_programs()
        self.dir = tempfile.mkdtemp(prefix="redis", dir=parent)
        self.port = None
        self.process = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *unused):
        self.close()

    def start(self):
        for attempt in range(5):
            self.port = free_port(1)
            with open(os.path.join(self.dir, "redis.log"), "ab") as log:
                self.process = subprocess.Popen(
                    ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.dir,
                     "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--daemonize", "no",
                     "--auto-aof-rewrite-percentage", "0"],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            if wait_for(self.is_ready, "redis-server", 30, 0.02) == "ready":
                return
        raise RuntimeError(f"redis-server ends as soon as it is started:\n{self.log()}")

    def is_ready(self):
        """"ready"; "ended" when somebody else was quicker to take the port, or it cannot run at all."""
        if self.process.poll() is not None:
            return "ended"
        try:
            info = self.ask("INFO", "server").decode()
        except OSError:
            return None
        return "ready" if f"process_id:{self.process.pid}\r\n" in info else None

    def log(self):
        with open(os.path.join(self.dir, "redis.log"), encoding="utf-8", errors="replace") as log:
            return log.read()[-4000:]

    def ask(self, *words):
        """One command; the value of its answer, of the kinds that are needed here."""
        request = b"*%d\r\n" % len(words)
        for word in words:
            request += b"$%d\r\n%s\r\n" % (len(word), word.encode())
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as answer:
                head = answer.readline()
                if head[:1] == b":":
                    return int(head[1:])
                if head[:1] == b"$":
                    return answer.read(int(head[1:]))
                if head[:1] == b"*":
                    return [answer.read(int(answer.readline()[1:]) + 2)[:-2] for _ in range(int(head[1:]))]
                raise OSError(f"redis answered {head!r}")

    def entries(self):
        return self.ask("XLEN", STREAM)

    def run_benchmark(self, size, count):
        """XADD of count entries with a field of size bytes: {"rate", "p50_us", "p99_us"}."""
        if self.ask("CONFIG", "GET", "appendfsync")[1] != b"always":
            raise RuntimeError("redis-server does not sync each append")
        before = self.entries()
        done = subprocess.run(
            ["redis-benchmark", "-h", "127.0.0.1", "-p", str(self.port), "-c", str(CLIENTS), "-P", str(PIPELINE),
             "-n", str(count), "--csv", "XADD", STREAM, "*", "f", "x" * size],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        output = done.stdout.decode(errors="replace")
        if done.returncode != 0 or self.entries() - before < count:
            raise RuntimeError(f"redis-benchmark did not append {count} entries:\n{output}\n{self.log()}")
        row = list(csv.DictReader(io.StringIO(output)))[-1]
        return {"rate": float(row["rps"]), "p50_us": round(float(row["p50_latency_ms"]) * 1000),
                "p99_us": round(float(row["p99_latency_ms"]) * 1000)}

    def append_for(self, seconds, size):
        """For about so long: how many entries that takes is found out first, on a stream that is dropped again."""
        count = CALIBRATE
        while True:
            first = self.run_benchmark(size, count)
            if count / first["rate"] >= seconds / 10:
                break
            count *= 4
        self.ask("DEL", STREAM)
        figures = self.run_benchmark(size, max(CALIBRATE, int(first["rate"] * seconds)))
        return dict(figures, bytes_per_s=figures["rate"] * size)

    # ---- keys, named as redis-benchmark names them ----

    def time_commands(self, command, keys, clients, pipeline, count):
        """A command with key:__rand_int__ of so many keys: {"rate", "p50_us", "p99_us"} of requests."""
        done = subprocess.run(
            ["redis-benchmark", "-h", "127.0.0.1", "-p", str(self.port), "-c", str(clients), "-P", str(pipeline),
             "-r", str(keys), "-n", str(count), "--csv", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        output = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            raise RuntimeError(f"redis-benchmark {command[0]}:\n{output}\n{self.log()}")
        row = list(csv.DictReader(io.StringIO(output)))[-1]
        return {"rate": float(row["rps"]), "p50_us": round(float(row["p50_latency_ms"]) * 1000),
                "p99_us": round(float(row["p99_latency_ms"]) * 1000)}

    def command_for(self, seconds, command, keys, clients, pipeline):
        """For about so long."""
        count = CALIBRATE
        while True:
            figures = self.time_commands(command, keys, clients, pipeline, count)
            if count / figures["rate"] >= seconds / 10:
                break
            count *= 4
        return self.time_commands(command, keys, clients, pipeline, max(CALIBRATE, int(figures["rate"] * seconds)))

    def put_keys(self, keys, size):
        """As many SETs as there are keys, at random; then those that were missed are filled in, which does not count."""
        figures = self.time_commands(["SET", "key:__rand_int__", "x" * size], keys, CLIENTS, PIPELINE, keys)
        for first in range(0, keys, FILL):
            self.ask("EVAL", "for i=ARGV[1],ARGV[2]-1 do redis.call('SET',string.format('key:%012d',i),ARGV[3]) end return 1", "0",
                     str(first), str(min(first + FILL, keys)), "x" * size)
        if self.ask("DBSIZE") != keys:
            raise RuntimeError(f"redis-server has {self.ask('DBSIZE')} keys instead of {keys}")
        return figures

    def scan_keys(self, keys):
        """All keys, without their values, 10,000 an answer: {"rate"}."""
        cursor, found, start = b"0", 0, time.monotonic()
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            while True:
                connection.sendall(b"*4\r\n$4\r\nSCAN\r\n$%d\r\n%s\r\n$5\r\nCOUNT\r\n$5\r\n10000\r\n" % (len(cursor), cursor))
                cursor, rows = take_scan(connection)
                found += rows
                if cursor == b"0":
                    break
        if found < keys:
            raise RuntimeError(f"SCAN found {found} keys of {keys}")
        return {"rate": found / (time.monotonic() - start)}

    def close(self):
        try:
            if self.process is not None and self.process.poll() is None:
                self.process.terminate()
                try:
                    self.process.wait(20)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait(10)
        finally:
            shutil.rmtree(self.dir, ignore_errors=True)
