"""shanghaictl svc log-level: of one service and of all, while they run."""
import json
import unittest

from cluster import SUPERVISOR
from shanghai import SERVICES, Node, wait_for


class LogLevel(unittest.TestCase):
    def setUp(self):
        self.node = Node(SUPERVISOR)
        self.addCleanup(self.node.close)
        self.node.start()

    def lines(self, service, **wanted):
        with open(f"{self.node.run}/log/{service}.log", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.startswith("{")]
        return [row for row in rows if wanted.items() <= row.items()]

    def set(self, *args):
        self.node.ctl("svc", "log-level", *args)

    def test_one_service_then_all_then_the_settings_again(self):
        self.assertEqual(self.lines("querysvc", level="debug"), [])
        self.set("debug", "querysvc")
        wait_for(lambda: self.lines("querysvc", to="debug"), "querysvc to take it")
        self.node.ctl("append", "x")
        wait_for(lambda: self.lines("querysvc", level="debug"), "a line of querysvc")
        self.assertEqual(self.lines("walsvc", level="debug"), [])
        self.set("warn")
        for service in SERVICES:
            wait_for(lambda s=service: self.lines(s, to="warn"), f"{service} to take it")
        before = len(self.lines("querysvc", level="debug"))
        self.node.ctl("append", "x")
        self.assertEqual(len(self.lines("querysvc", level="debug")), before)
        self.node.ctl("svc", "restart", "querysvc")
        wait_for(lambda: len(self.lines("querysvc", msg="ready")) == 2, "the level of the settings behind a restart")

    def test_what_makes_no_sense_is_named(self):
        self.assertEqual(self.node.ctl("svc", "log-level", "loud", check=False).returncode, 2)
        self.assertEqual(self.node.ctl("svc", "log-level", check=False).returncode, 2)
        done = self.node.ctl("--format", "json", "svc", "log-level", "info", "nosuch", check=False)
        self.assertEqual((done.returncode, json.loads(done.stderr)["error"]), (1, "not_found"))


if __name__ == "__main__":
    unittest.main()
