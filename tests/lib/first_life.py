"""A node of which one service, walsvc or querysvc, meets its fault in its first life only: the supervisor runs a small script
in its place, which takes the fault from a file and leaves it out the next time. Nothing in the service knows of it."""
import os
import shlex
import subprocess
import threading

from shanghai import BIN, Node, wait_for

MANY_RESTARTS = "intensity: 1000, period: 60s, backoff: false"


class FirstLife(Node):
    """prefix: the words before the service's own in the next life, as ["strace", "-D", ...] or ["env", "NAME=value"]; later
    ones get `later`."""

    def __init__(self, settings="", prefix=(), later=(), service="walsvc"):
        super().__init__(settings=settings)
        self.service = service
        self.marker = os.path.join(self.dir, "armed")
        self.program = os.path.join(self.dir, f"{service}-first")
        with open(self.config, "a", encoding="ascii") as file:
            children = ", ".join(f"{{service: {name}, program: {self.program}}}" if name == service else f"{{service: {name}}}"
                                 for name in ("walsvc", "querysvc"))
            file.write(f"supervisor: {{{MANY_RESTARTS}, children: [{children}]}}\n")
        self.arm(prefix, later)

    def arm(self, prefix, later=()):
        """The next start has the prefix."""
        service = [os.path.join(BIN, self.service)]
        with open(self.program, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\n"
                       f"if rmdir {shlex.quote(self.marker)} 2>/dev/null; then\n"
                       f"    exec {shlex.join([*prefix, *service])} \"$@\"\nfi\n"
                       f"exec {shlex.join([*later, *service])} \"$@\"\n")
        os.chmod(self.program, 0o700)
        if not os.path.isdir(self.marker):
            os.mkdir(self.marker)

    def start_through_fault(self):
        """Ready. A service that fails in its very first start ends the node, which is then started again: True."""
        self.spawn()
        try:
            self.wait_ready()
            return False
        except AssertionError:
            if self.process.poll() is None:
                raise
        self.start()
        return True

    def restarts(self):
        return self.tree()[self.service]["restarts"]


class Lines:
    """`append -` with lines of their own numbers, fed while the node goes through its fault."""

    def __init__(self, node, count, pad=1000, batch=10):
        self.node = node
        self.data = b"".join(b"%d %s\n" % (i, b"x" * pad) for i in range(1, count + 1))
        self.process = subprocess.Popen(
            node.ctl_command("--format", "json", "--timeout", "60s", "append", "--batch", str(batch), "-"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.out = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        self.out = self.process.communicate(self.data)

    def finish(self):
        """Every line is acknowledged, and is there exactly once, in order."""
        self.thread.join(180)
        if self.thread.is_alive():
            self.process.kill()
            self.thread.join()
            raise AssertionError(f"append does not end\n{self.node.log_tail()}")
        if self.process.returncode != 0:
            raise AssertionError(f"append ended with {self.process.returncode}: {self.out[1].decode()}\n"
                                 f"{self.node.log_tail()}")
        self.check()

    def check(self):
        back = self.node.ctl("--format", "raw", "read", "--from", "1").stdout
        if back != self.data:
            lines, expected = back.split(b"\n"), self.data.split(b"\n")
            at = next((i for i, pair in enumerate(zip(lines, expected)) if pair[0] != pair[1]), len(lines))
            raise AssertionError(f"{len(lines)} lines are there of {len(expected)}; the first that differs is {at + 1}")
        verify = self.node.ctl("log", "verify", "--data", self.node.data, check=False)
        if verify.returncode != 0:
            raise AssertionError(verify.stdout.decode() + verify.stderr.decode())


def wait_restarted(node, restarts=1):
    wait_for(lambda: node.restarts() >= restarts, f"{node.service} to meet its fault", 120)
    node.wait_ready()
