"""Logs of a cluster that lose their first segments, and views that have to come from a member."""
import json
import os
import shutil

from caller import Caller
from shanghai import wait_for

VIEW_INFO, VIEW_INFO_REPLY = 132, 133
VIEW_SETTINGS = "wal: {segment_size: 1MiB, disk_reserve: 1MiB}\n"
STATES = ("following", "rebuilding", "lacking", "fetching", "installing")


def write(node, texts, *args):
    """A transaction each. The node's own view has them when this returns."""
    file = os.path.join(node.dir, "written")
    for text in texts:
        node.ctl("kv", "txn", "--session", file, *args, input=text.encode())
    node.ctl("kv", "scan", "--session", file, "no such key")
    os.unlink(file)


def fill(node, tag, frames=12, *args):
    """More than two segments: puts, and one addition to each of 100 counters a frame."""
    write(node, ("\n".join(f"put {tag}/{frame}/{i} {os.urandom(1000).hex()}\nincr c{i} 1" for i in range(100))
                 for frame in range(frames)), *args)


def write_keys(node, tag, count, batch=2000):
    """Small ones."""
    write(node, ("\n".join(f"put {tag}/{i:06} {i}\nincr n{i % 10} 1" for i in range(first, min(first + batch, count)))
                 for first in range(0, count, batch)))


def first_lsn(node, log):
    return node.json("log", "info", "--log", log)["first_lsn"]


def trim(node, log, *args):
    """Everything that may go; what is said. {}: it was refused, as with a hold to be released that isn't there."""
    return json.loads(node.ctl("--format", "json", "log", "trim", "--log", log, "--before", str(2**62), *args,
                               check=False).stdout or b"{}")


def trim_to(node, log, before, release=None):
    """Nothing below that LSN is left; what that member needs doesn't matter."""
    def trimmed():
        if release is not None:
            trim(node, log, "--release", release)
        return trim(node, log).get("first_lsn", 0) >= before
    wait_for(trimmed, f"{node.name} to trim {log}")


def trim_all(cluster, log, before):
    for node in cluster.nodes.values():
        trim_to(node, log, before)


def view_info(test, node):
    """None: no answer now."""
    try:
        caller = Caller(test, f"{node.run}/query.in", f"{node.run}/query.out")
        kind, body = caller.ask(VIEW_INFO, {})
    except (OSError, AssertionError):
        return None
    return body if kind == VIEW_INFO_REPLY else None


def state_of(test, node):
    info = view_info(test, node)
    return info and STATES[info.get(7, 0)]


def lose_view(node):
    """While the node is stopped."""
    shutil.rmtree(os.path.join(node.data, "view"))


def rows(node):
    """None: it is not to be read now."""
    done = node.ctl("--format", "json", "kv", "scan", check=False)
    return {row["key"]: row for row in json.loads(done.stdout)} if done.returncode == 0 else None


def wait_rows(node, wanted, timeout=60):
    wait_for(lambda: rows(node) == wanted, f"{node.name} to have the rows", timeout, 0.1)


def wait_equal_views(cluster, timeout=60):
    """The rows that all have."""
    def equal():
        first, *others = [rows(node) for node in cluster.nodes.values()]
        return first if first and all(other == first for other in others) else None
    return wait_for(equal, "equal views", timeout, 0.1)


def checkpoint_files(node):
    """What there is of checkpoints, given or taken."""
    root = os.path.join(node.data, "checkpoints")
    return os.listdir(root) if os.path.isdir(root) else []


def checkpoint_holds(node, log):
    return [hold["name"] for hold in node.json("log", "info", "--log", log)["holds"] if hold["name"].startswith("checkpoint")]


def wait_let_go(cluster, log):
    """Nothing is left of a transfer: no folders, no holds."""
    for node in cluster.nodes.values():
        wait_for(lambda node=node: checkpoint_files(node) == [], f"the files at {node.name} to go", 60)
        wait_for(lambda node=node: checkpoint_holds(node, log) == [], f"the holds at {node.name} to go", 60)
