"""Logs of a cluster's nodes as their files have them, and appends that note what was acknowledged."""
import hashlib
import json
import os
import subprocess
import threading

from shanghai import wait_for

FRAME_HEADER = 88


def log_of(cluster, name):
    """uuid of a node's own log."""
    return cluster[name].json("status")["log"]


def segment_files(node, uuid):
    """{base LSN: path} of what a node holds of a log; {} for nothing."""
    folder = os.path.join(node.data, "log", uuid)
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return {int(name.split(".")[0]): os.path.join(folder, name) for name in names if name.endswith(".seg")}


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def segments(node, uuid):
    """{base LSN: bytes}"""
    return {base: read_file(path) for base, path in segment_files(node, uuid).items()}


def frames_end(data):
    """Where the frames of a segment end: behind the last header that has the magic."""
    at = 64
    while data[at:at + 4] == b"SHFR":
        at += FRAME_HEADER + int.from_bytes(data[at + 8:at + 12], "little")
    return at


def digest(node, uuid):
    """{base LSN: sha256 of the frames, header included} of a log at a node."""
    def of_frames(data):
        return hashlib.sha256(memoryview(data)[:frames_end(data)]).hexdigest()
    return {base: of_frames(read_file(path)) for base, path in segment_files(node, uuid).items()}


def crc32c(crc, data):
    """As common/crc32c.h has it: `crc` is what came before."""
    crc ^= 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def positions(cluster, name):
    """{log uuid: LSN} of the copies that a node keeps, and its own log."""
    replicas = cluster[name].try_json("replicas")
    if replicas is None:
        return {}
    found = {row["log"]: row["lsn"] for row in replicas["followed"]}
    found[replicas["log"]] = replicas["durable_lsn"]
    return found


def wait_equal(cluster, names=None, timeout=60):
    """Until all nodes hold all of the nodes' logs, to the same LSN; then compares the files. Returns {uuid: LSN}."""
    names = names or list(cluster.nodes)
    seen = {}

    def equal():
        seen.clear()
        seen.update({name: positions(cluster, name) for name in names})
        first = seen[names[0]]
        return len(first) >= len(names) and all(seen[name] == first for name in names)

    try:
        wait_for(equal, "equal logs", timeout, 0.2)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{json.dumps(seen, indent=1)}") from None
    for uuid in seen[names[0]]:
        digests = [digest(cluster[name], uuid) for name in names]
        assert all(one == digests[0] for one in digests), (uuid, digests)
    return dict(seen[names[0]])


class Appender(threading.Thread):
    """Appends lines to a node, each of which says where it is from; notes how it ended."""

    def __init__(self, node, count, *options, tag=""):
        super().__init__()
        self.lines = [f"{tag or node.name}-{i:060}" for i in range(count)]
        patience = ("--ack-timeout", "60s")  # followers may just be starting
        self.command = node.ctl_command("--format", "json", "append", "--batch", "100", *patience, *options, "-")
        self.env = node.env
        self.done = None

    def run(self):
        self.done = subprocess.run(self.command, input="".join(f"{line}\n" for line in self.lines).encode(),
                                   capture_output=True, env=self.env, check=False, timeout=300)

    def summary(self):
        self.join()
        assert self.done.returncode == 0, self.done.stderr.decode()
        return json.loads(self.done.stdout)


def read_lines(node, uuid):
    """All payloads of a log, as a node has it; [] while it has none, or can't read them all."""
    done = node.ctl("--format", "raw", "read", "--log", uuid, "--from", "1", "--count", "100000000", check=False)
    return done.stdout.decode().splitlines() if done.returncode == 0 else []


def wait_lines(node, uuid, lines, timeout=60):
    """Until a log has just these at a node: querysvc hears of its end after replsvc."""
    wait_for(lambda: read_lines(node, uuid) == lines, f"{len(lines)} lines of log {uuid} at {node.name}", timeout, 0.5)
