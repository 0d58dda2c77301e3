"""Network namespaces of a test's own, joined by veth pairs to a bridge in one more; nothing of them is in the host's.

Each is held by a process that ends with the test, and is gone with it."""
import ctypes
import os
import socket
import subprocess
import sys
import threading

import delay_line

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def why_no_networks():
    """None, or why there can be none. Asked in a child: the caller stays where it is."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces of its own"
    child = os.fork()
    if child == 0:
        os._exit(0 if libc.unshare(CLONE_NEWNET) == 0 else ctypes.get_errno())
    error = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return f"no network namespace: {os.strerror(error)}" if error != 0 else None


class Space:
    """One namespace, and the process that holds it."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE)
        self.holder.stdout.readline()  # it is there
        self.enter = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net"]
        self.ip("link", "set", "lo", "up")

    def ip(self, *args):
        subprocess.run([*self.enter, "ip", *args], check=True, timeout=60)

    def close(self):
        self.holder.stdin.close()
        self.holder.stdout.close()
        self.holder.wait(30)


class Network:
    """A bridge, and a namespace for each node: 10.77.0.1, 10.77.0.2, ..."""

    def __init__(self):
        self.bridge = Space()
        self.bridge.ip("link", "add", "bridge", "type", "bridge")
        self.bridge.ip("link", "set", "bridge", "up")
        self.spaces = {}
        self.line = None

    def add(self, name):
        """Its address."""
        space = self.spaces[name] = Space()
        host = f"10.77.0.{len(self.spaces)}"
        self.bridge.ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(space.holder.pid))
        self.bridge.ip("link", "set", name, "master", "bridge", "up")
        space.ip("link", "set", "eth0", "up")
        space.ip("address", "add", f"{host}/24", "dev", "eth0")
        return host

    def enter(self, name):
        """What a command begins with that is to run there."""
        return self.spaces[name].enter

    def ip(self, name, *args):
        """`ip` in the node's namespace."""
        self.spaces[name].ip(*args)

    def socket_in(self, name):
        """A TCP socket that is in the node's namespace, wherever it is used."""
        made = []

        def make():  # a thread has a namespace of its own
            with open(f"/proc/{self.spaces[name].holder.pid}/ns/net", "rb") as space:
                if libc.setns(space.fileno(), CLONE_NEWNET) == 0:
                    made.append(socket.socket())
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def pull_cable(self, name):
        """At the bridge's end: the node keeps its address and its routes."""
        self.bridge.ip("link", "set", name, "down")

    def plug_cable(self, name):
        self.bridge.ip("link", "set", name, "up")

    def lengthen(self, name, one_way_ms):
        """The node's cable becomes a long one."""
        self.bridge.ip("link", "add", "far", "type", "veth", "peer", "name", "near")
        self.bridge.ip("link", "set", "near", "master", "bridge", "up")
        self.bridge.ip("link", "set", "far", "up")
        self.bridge.ip("link", "set", name, "nomaster")
        self.line = subprocess.Popen(
            [*self.bridge.enter, sys.executable, delay_line.__file__, str(one_way_ms), name, "far"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.line.stdout.readline(), "it passes nothing on"

    def split(self, names):
        """These reach each other, the others each other, and none of these one of those."""
        self.bridge.ip("link", "add", "island", "type", "bridge")
        self.bridge.ip("link", "set", "island", "up")
        for name in names:
            self.bridge.ip("link", "set", name, "master", "island")

    def unite(self):
        for name in self.spaces:
            self.bridge.ip("link", "set", name, "master", "bridge")
        self.bridge.ip("link", "del", "island")

    def close(self):
        if self.line is not None:
            self.line.communicate(timeout=30)
        for space in [*self.spaces.values(), self.bridge]:
            space.close()
