"""Histories of clients that append, and what they must find in the logs when all is over.

A call is one append request: a frame of one or several values, no two of which are the same in the whole history. It ends
ok (with the log, the LSN and the level that were answered), failed (refused: it is nowhere) or unknown (there was no answer:
all of it may be there, or nothing, and it may have come about later)."""
import json
import random
import string
import threading
import time

OK, FAILED, UNKNOWN = "ok", "failed", "unknown"
LEVELS = ("local", "quorum", "all")
MAY_HAVE_HAPPENED = ("timeout", "unavailable", "internal")
FOR_EVER = float("inf")


class Call:
    """invoked, returned: seconds on any one clock; returned is for ever when the outcome is unknown."""

    def __init__(self, node, values, invoked):
        self.node, self.values, self.invoked = node, values, invoked
        self.outcome, self.returned = UNKNOWN, FOR_EVER
        self.log = self.lsn = self.level = None  # of what is ok; lsn: of the first value

    def ok(self, returned, log, lsn, level):
        self.outcome, self.returned, self.log, self.lsn, self.level = OK, returned, log, lsn, level
        return self

    def failed(self, returned):
        self.outcome, self.returned = FAILED, returned
        return self

    def is_owed(self, lost):
        """Its entries must be there: in a log that was lost at its node, if others were to have them too."""
        return self.outcome == OK and (self.log not in lost or self.level != "local")


# ---- judging. logs: {node: {log uuid: [(LSN, value)]}}, owners: {log uuid: node that writes it}

def faults_of_copies(logs):
    first, *others = logs
    for other in others:
        for uuid in logs[first].keys() | logs[other].keys():
            if logs[first].get(uuid) != logs[other].get(uuid):
                yield f"log {uuid} is another one at {other} than at {first}"


def faults_of_contents(sent, log, owner):
    """Of one log, without regard to what was answered."""
    for number, (lsn, value) in enumerate(log, 1):
        if lsn != number:
            yield f"LSN {lsn} of {owner} stands at place {number}"
        call = sent.get(value)
        if call is None:
            yield f"LSN {lsn} of {owner} was never sent: {value[:40]}"
        elif call.node != owner:
            yield f"LSN {lsn} of {owner} was sent to {call.node}: {value[:40]}"
        elif call.outcome == FAILED:
            yield f"LSN {lsn} of {owner} was refused: {value[:40]}"


def faults_of_place(call, places, lost):
    """places: {value: [(log, LSN)]}"""
    found = [places.get(value, []) for value in call.values]
    name = call.values[0][:40]
    if any(len(place) > 1 for place in found):
        yield f"stands there twice: {name}"
    elif not any(found):
        if call.is_owed(lost):
            yield f"acknowledged ({call.level}) and lost: {name}"
    elif not all(found):
        yield f"only a part is there: {name}"
    else:
        log, lsn = found[0][0]
        if [place[0] for place in found] != [(log, lsn + i) for i in range(len(found))]:
            yield f"does not stand together: {name}"
        if call.outcome == OK and (call.log, call.lsn) != (log, lsn):
            yield f"answered as LSN {call.lsn}, stands at {lsn}: {name}"


def faults_of_order(calls, places):
    """What began when another one had been answered stands behind it, if in the same log."""
    there = [(call, *places[call.values[0]][0]) for call in calls if places.get(call.values[0])]
    answered = sorted(((call.returned, log, lsn) for call, log, lsn in there if call.returned != FOR_EVER), reverse=True)
    highest = {}
    for call, log, lsn in sorted(there, key=lambda one: one[0].invoked):
        while answered and answered[-1][0] < call.invoked:
            _, of, at = answered.pop()
            highest[of] = max(highest.get(of, 0), at)
        if lsn <= highest.get(log, 0):
            yield f"LSN {lsn} stands before {highest[log]}, which had been answered before: {call.values[0][:40]}"


def faults(calls, logs, owners, lost=()):
    """All that is wrong, in words. lost: uuids of the logs that their own nodes lost."""
    sent = {value: call for call in calls for value in call.values}
    assert len(sent) == sum(len(call.values) for call in calls), "values must differ"
    yield from faults_of_copies(logs)
    final = next(iter(logs.values()))
    places = {}
    for uuid, log in final.items():
        yield from faults_of_contents(sent, log, owners[uuid])
        for lsn, value in log:
            places.setdefault(value, []).append((uuid, lsn))
    for call in calls:
        yield from faults_of_place(call, places, lost)
    yield from faults_of_order(calls, places)


# ---- recording

class Client(threading.Thread):
    """Appends to one node, one call after the other, until it is told to stop; by the C tool, a process for each call."""

    def __init__(self, node, number, seed, levels=("local", "quorum")):
        super().__init__()
        self.node, self.levels = node, levels
        self.name = f"{node.name}.{number}"
        self.rng = random.Random(f"{seed} {self.name}")
        self.calls = []
        self.error = None
        self.over = threading.Event()

    def run(self):
        try:
            while not self.over.wait(0.01):  # others want the processor, too
                self.calls.append(self.call(len(self.calls)))
        except AssertionError as error:
            self.error = error

    def stop(self):
        self.over.set()
        self.join()
        if self.error is not None:
            raise self.error
        return self.calls

    def call(self, number):
        values = [f"{self.name}/{number}/{i}:" + self.rng.choice(string.ascii_letters) * self.rng.randrange(400)
                  for i in range(self.rng.randrange(1, 8))]
        level = self.rng.choice(self.levels)
        call = Call(self.node.name, values, time.monotonic())
        patience = self.rng.choice(("200ms", "3s"))  # the short one makes unknown outcomes
        done = self.node.ctl("--format", "json", "--timeout", patience, "append", "--ack", level, "--ack-timeout", "1s",
                             *values, check=False)
        returned = time.monotonic()
        if done.stdout:  # also when the level was not reached
            answer = json.loads(done.stdout)
            assert answer["entries"] == len(values), answer
            return call.ok(returned, answer["first"]["log"], answer["first"]["lsn"], answer["ack"])
        assert done.stderr.startswith(b"{"), (done.returncode, done.stderr)
        error = json.loads(done.stderr)["error"]
        return call if error in MAY_HAVE_HAPPENED else call.failed(returned)


def read_log(node, uuid):
    """[(LSN, value)]"""
    lines = node.ctl("--format", "json", "read", "--log", uuid).stdout.splitlines()
    return [(entry["lsn"], entry["payload"]) for entry in map(json.loads, lines)]


def check(calls, cluster, owners, lost=()):
    """The logs of all nodes, which must be equal by now."""
    logs = {name: {uuid: read_log(node, uuid) for uuid in owners} for name, node in cluster.nodes.items()}
    found = list(faults(calls, logs, owners, lost))
    assert not found, f"{len(found)} faults:\n" + "\n".join(found[:20])


def summary(calls):
    counts = {outcome: sum(call.outcome == outcome for call in calls) for outcome in (OK, FAILED, UNKNOWN)}
    levels = {level: sum(call.level == level for call in calls) for level in LEVELS}
    return f"{len(calls)} calls: {counts}, {levels}"
