"""Clients that write and read keys in sessions that move between nodes, by the C tool; and what the logs say became of it."""
import itertools
import json
import os
import random
import threading
import time

import sessions
from history import MAY_HAVE_HAPPENED
from view_model import field

KEYS = [f"k{i:02}" for i in range(12)]  # that sessions judge
COUNTERS = [f"n{i}" for i in range(4)]
TTLS = ("1ms", "1s", "1h")


class Session(threading.Thread):
    """One thing after the other, each on a node of its choice, until it is told to stop. steps: see sessions.py; added:
    {counter: sum} of what was acknowledged; unknown: [(counter, delta)] of what may have come about."""

    def __init__(self, cluster, number, seed, folder):
        super().__init__()
        self.cluster, self.name = cluster, f"s{number}"
        self.chance = random.Random(f"{seed} {self.name}")
        self.file = os.path.join(folder, f"{self.name}.session")
        self.steps, self.added, self.unknown = [], {}, []
        self.answers, self.number = 0, 0
        self.error = None
        self.over = threading.Event()

    def run(self):
        try:
            while not self.over.wait(0.01):  # others want the processor, too
                self.chance.choice((self.write, self.write, self.get, self.scan))()
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def stop(self):
        self.over.set()
        self.join()
        if self.error is not None:
            raise self.error

    def ask(self, *args, **options):
        """(the node, what it answered, the name of an error), one of them None."""
        node = self.chance.choice(list(self.cluster.nodes.values()))
        patience = self.chance.choice(("100ms", "1s", "2s"))  # the short one makes unknown outcomes
        done = node.ctl("--format", "json", "--timeout", patience, *args[:2], "--session", self.file, *args[2:], check=False,
                        **options)
        if done.stdout and done.returncode in (0, 1):  # 1: no value, or the level was not reached
            self.answers += 1
            return node, json.loads(done.stdout), None
        assert done.stderr.startswith(b"{"), (done.returncode, done.stderr)
        return node, None, json.loads(done.stderr)["error"]

    # ---- writing

    def lines(self, mark):
        """Some operations; each frame has a value that no other one has."""
        yield f"put {self.name} {mark}"
        for i in range(self.chance.randrange(4)):
            key = self.chance.choice(KEYS)
            yield self.chance.choice((f"put {key} {mark}.{i}", f"put {key} {mark}.{i}", f"del {key}"))

    def write(self):
        self.number += 1
        mark = f"{self.name}/{self.number}"
        adds = [(self.chance.choice(COUNTERS), self.chance.randrange(-100, 1000)) for _ in range(self.chance.randrange(3))]
        lines = [*self.lines(mark), *(f"incr {key} {delta}" for key, delta in adds)]
        began = time.monotonic()
        level = self.chance.choice(("local", "local", "quorum"))
        node, done, error = self.ask("kv", "txn", "--ack", level, "--ack-timeout", "300ms", input="\n".join(lines).encode())
        step = sessions.Write(self.name, began, node.name, mark)
        if done is not None:
            step.outcome, step.log, step.lsn = sessions.OK, done["log"], done["lsn"]
            for key, delta in adds:
                self.added[key] = self.added.get(key, 0) + delta
        elif error in MAY_HAVE_HAPPENED:
            self.unknown += adds
        else:
            step.outcome = sessions.FAILED
        self.steps.append(step)
        if self.chance.random() < 0.1:
            self.ask("kv", "put", "--ttl", self.chance.choice(TTLS), f"t{self.chance.randrange(20):02}", mark)

    # ---- reading

    def note_read(self, node, rows, keys, instant):
        shown = dict.fromkeys(keys)
        for row in rows:
            key, value = field(row, "key").decode(), field(row, "value")
            if value is not None and key in shown:
                version = row["version"]
                shown[key] = (version["hlc"], version["log"], version["lsn"]), value.decode()
        self.steps.append(sessions.Read(self.name, time.monotonic(), node.name, shown, instant))

    def names(self):
        return [f"s{i}" for i in range(int(self.name[1:]) + 1)]

    def get(self):
        keys = self.chance.sample(KEYS + self.names(), 3)
        node, rows, _ = self.ask("kv", "get", *keys)
        if rows is not None:
            self.note_read(node, rows, keys, False)

    def scan(self):
        node, rows, _ = self.ask("kv", "scan", "k")  # in one answer
        if rows is not None:
            self.note_read(node, rows, KEYS, True)


def frames_of(entries):
    """sessions.Frame of all frames of a log; each has a clock of its own. Its first entry is the client's: what the library
    puts in front, to say what the frame comes after, is none of it."""
    for hlc, group in itertools.groupby(entries, lambda entry: entry.hlc):
        group = [entry for entry in group if entry.kind != "after"]
        written = {entry.key.decode(): ((hlc, entry.log, entry.lsn), entry.value and entry.value.decode())
                   for entry in group if entry.kind in ("put", "delete")}
        yield sessions.Frame(group[0].log, group[0].lsn, written)


def judge(clients, logs, across):
    """All that is wrong in what these saw and wrote, in words. logs: {uuid: entries} (view_model.read_log)."""
    frames = [frame for entries in logs.values() for frame in frames_of(entries)]
    names = {client.name for client in clients}
    marks = {value: frame for frame in frames for key, (_, value) in frame.written.items() if key in names}
    steps = [step for client in clients for step in client.steps]
    return sessions.faults(steps, frames, marks, across)


def faults_of_counters(clients, shown):
    """shown: {counter: its sum at a node}. What was acknowledged is in it, and of the rest what may have come about."""
    for counter in COUNTERS:
        added = sum(client.added.get(counter, 0) for client in clients)
        unknown = [delta for client in clients for key, delta in client.unknown if key == counter]
        least, most = (added + sum(delta for delta in unknown if delta * sign > 0) for sign in (-1, 1))
        if not least <= shown.get(counter, 0) <= most:
            yield f"{counter} is {shown.get(counter)}, not from {least} to {most}"


def summary(clients):
    writes = [step for client in clients for step in client.steps if isinstance(step, sessions.Write)]
    counts = {name: sum(step.outcome == name for step in writes) for name in (sessions.OK, sessions.FAILED, sessions.UNKNOWN)}
    reads = sum(isinstance(step, sessions.Read) for client in clients for step in client.steps)
    return f"{len(writes)} writes: {counts}, {reads} reads"
