"""What tests of cursors have in common: a node, and `cursor` with a session of the test's own."""
import json
import os
import unittest

from caller import Caller

ERROR, CURSOR_GET, CURSOR_GET_REPLY, CURSOR_SET, CURSOR_SET_REPLY = 3, 138, 139, 140, 141
UNAVAILABLE = 12
NOBODY = "11111111-2222-4333-8444-555555555555"
COMMIT, TAKE_FREE, TAKE, DELETE = range(4)


class CursorTest(unittest.TestCase):
    def session(self):
        self.sessions = getattr(self, "sessions", 0) + 1
        return os.path.join(self.node.dir, f"{self.id()}.{self.sessions}")

    def json(self, verb, *args):
        return self.node.json("cursor", verb, "--session", self.file, *args)

    def take(self, name, *options):
        return self.json("take", name, *options)

    def commit(self, name, held, *places):
        """held: what take gave."""
        return self.json("set", name, "--epoch", str(held["epoch"]), "--owner", held["owner"], *places)

    def place(self, lsn, log=None):
        return f"{log or self.log}:{lsn}"

    def refused(self, code, error, verb, *args, **options):
        done = self.node.ctl("--format", "json", "--timeout", options.pop("timeout", "10s"), "cursor", verb, "--session",
                             self.file, *args, check=False, **options)
        self.assertEqual(done.returncode, code, done)
        said = json.loads(done.stderr)
        self.assertEqual(said["error"], error, said)
        return said["text"]

    def holds(self):
        """{cursor: LSN} of the own log."""
        holds = self.node.json("log", "info").get("holds", [])  # none while walsvc is away
        return {hold["name"]: hold["lsn"] for hold in holds if hold["kind"] == "cursor"}

    def at(self, name):
        """{log: LSN} of what is not 0."""
        return {log["log"]: log["lsn"] for log in self.json("show", name)["logs"] if log["lsn"] > 0}

    def caller(self):
        return Caller(self, f"{self.node.run}/query.in", f"{self.node.run}/query.out")
