"""The view as docs/view-format.md states it, made anew from the logs that `shanghaictl read` shows: what all nodes must have."""
import base64
import json

from shanghai import wait_for

MODULUS = 1 << 64


def field(row, name):
    """The bytes of a JSON field, however they were written; None: there are none."""
    if name in row:
        return row[name].encode()
    return base64.b64decode(row[f"{name}_base64"]) if f"{name}_base64" in row else None


class Entry:
    """A put, delete or add in a log. version: (HLC, log, LSN), by which puts and deletes are ordered."""

    def __init__(self, log, row):
        self.log, self.lsn, self.kind, self.hlc = log, row["lsn"], row["kind"], row["hlc"]
        self.key, self.value, self.delta = field(row, "key"), field(row, "payload"), row.get("delta")
        self.expires_ms = (self.hlc >> 16) + row["ttl_ms"] if row.get("ttl_ms") else 0
        if self.expires_ms >= MODULUS // 2:
            self.expires_ms = 0  # as good as for ever

    @property
    def version(self):
        return self.hlc, self.log, self.lsn


def read_log(node, uuid):
    """All of a log that a node holds, from its start; events included."""
    lines = node.ctl("--format", "json", "read", "--log", uuid).stdout.splitlines()
    entries = [Entry(uuid, row) for row in map(json.loads, lines)]
    assert [entry.lsn for entry in entries] == list(range(1, len(entries) + 1)), f"log {uuid} has gaps"
    return entries


class Model:
    """rows: {key: [the highest put or delete, the counter]}, each None without one."""

    def __init__(self, entries=()):
        self.rows = {}
        for entry in entries:
            self.apply(entry)

    def apply(self, entry):
        if entry.key is None:
            return
        row = self.rows.setdefault(entry.key, [None, None])
        if entry.kind == "add":
            row[1] = ((row[1] or 0) + entry.delta + MODULUS // 2) % MODULUS - MODULUS // 2
        elif entry.kind in ("put", "delete") and (row[0] is None or entry.version > row[0].version):
            row[0] = entry

    def scan(self, at_ms):
        """{key: (value, version, expires_ms, counter)} of what a scan shows at that time."""
        found = {}
        for key, (written, counter) in sorted(self.rows.items()):
            if written is not None and (written.kind == "delete" or 0 < written.expires_ms <= at_ms):
                written = None
            if written is not None:
                found[key] = written.value, written.version, written.expires_ms, counter
            elif counter is not None:
                found[key] = None, None, 0, counter
        return found


def scan_of(node):
    """What a node shows, in the form of Model.scan."""
    found = {}
    rows = node.json("kv", "scan")
    for row in rows:
        value = field(row, "value")
        version = row.get("version") if value is not None else None
        found[field(row, "key")] = (value, version and (version["hlc"], version["log"], version["lsn"]),
                                    row.get("expires_ms", 0) if value is not None else 0, row.get("counter"))
    assert list(found) == sorted(found) and len(found) == len(rows), "in order, each once"
    return found


def model_of(node, uuids):
    return Model(entry for uuid in uuids for entry in read_log(node, uuid))


def has_applied(node, log):
    """log: of view info. How far it goes is asked of walsvc: querysvc, and so the view, hears of what is appended later than
    who has appended it."""
    done = node.ctl("--format", "json", "--timeout", "2s", "log", "info", "--log", log["log"], check=False)
    if done.returncode == 0:
        return log["applied_lsn"] >= json.loads(done.stdout)["durable_lsn"]
    return log["behind"] == 0 and b"not_found" in done.stderr  # it is not held any more


def is_up_to_date(node):
    """Whether the view has applied all that the node holds."""
    info = node.try_json("view", "info")
    return info is not None and info["opened"] and all(has_applied(node, log) for log in info["logs"])


def wait_applied(node, written, timeout=60):
    """Until the view has what a write says of itself in JSON."""
    last = written["lsn"] + written["count"] - 1

    def is_there():
        logs = (node.try_json("view", "info") or {"logs": []})["logs"]
        return any(log["log"] == written["log"] and log["applied_lsn"] >= last for log in logs)
    wait_for(is_there, f"LSN {last} to be applied at {node.name}", timeout)


def differences(shown, expected):
    for key in sorted(shown.keys() | expected.keys()):
        if shown.get(key) != expected.get(key):
            yield f"{key!r}: {shown.get(key)} instead of {expected.get(key)}"


def check_rows(node, model, at_ms):
    """Nothing may expire between at_ms and the scan."""
    found = list(differences(scan_of(node), model.scan(at_ms)))
    assert not found, f"{node.name}: {len(found)} rows differ from the logs:\n" + "\n".join(found[:20])


def wait_equal_digests(nodes, timeout=60):
    """Until all nodes have applied the same; then their digests are the same. Returns the digest."""
    nodes = list(nodes)

    def ask():
        first = nodes[0].try_json("view", "digest")
        if first is None:
            return None
        answers = [first] + [node.try_json("view", "digest", "--at", str(first["at_ms"])) for node in nodes[1:]]
        if None in answers or any(answer["applied"] != first["applied"] for answer in answers):
            return None
        return answers
    answers = wait_for(ask, "all views to have applied the same", timeout, 0.05)
    assert all(answer["digest"] == answers[0]["digest"] for answer in answers), answers
    return answers[0]
