"""shanghaictl about replication, on a node alone: nobody follows, what is told while replsvc is away, and whose log a
command is about."""
import os
import re
import subprocess
import unittest

from shanghai import BIN, Node, wait_for


class Alone(unittest.TestCase):
    def setUp(self):
        self.node = Node()
        self.addCleanup(self.node.close)
        self.node.start()
        wait_for(lambda: self.node.json("status")["health"] == "healthy", "a healthy node")

    def refused(self, code, said, *args):
        done = self.node.ctl(*args, check=False)
        self.assertEqual((done.returncode, done.stdout), (code, b""), done.stderr)
        self.assertIn(said, done.stderr.decode())

    def test_nobody_follows_and_nothing_is_followed(self):
        replicas = self.node.json("replicas")
        self.assertEqual((replicas["node"], replicas["log"]), ("n1", self.node.json("status")["log"]))
        self.assertEqual((replicas["followed"], replicas["followers"]), ([], []))
        self.assertEqual(replicas["counters"]["fetches"], 0)
        self.assertIn("nobody follows the log of n1", self.node.ctl("replicas").stdout.decode())

    def test_while_replsvc_is_away_the_node_is_degraded(self):
        self.node.stop_service("replsvc")

        def missed():
            status = self.node.json("status")
            return status if status["reasons"] == ["replsvc does not answer: logs are not copied"] else None
        status = wait_for(missed, "replsvc to be missed")
        self.assertEqual((status["health"], status["writable"]), ("degraded", True))
        self.refused(3, "unavailable: replsvc does not answer; `shanghaictl svc tree` shows why", "replicas")
        self.node.ctl("append", "taken")
        self.node.ctl("svc", "start", "replsvc")
        wait_for(lambda: self.node.json("status")["health"] == "healthy", "a healthy node")

    def test_whose_log_a_command_is_about(self):
        self.node.ctl("append", "one", "two")
        mine = self.node.json("status")["log"]
        for of in ((), ("--node", "n1"), ("--log", mine)):
            self.assertEqual(self.node.ctl("read", "--format", "raw", *of).stdout, b"one\ntwo\n")
            self.assertEqual(self.node.ctl("tail", "--format", "raw", "--lines", "1", *of).stdout, b"two\n")
            info = self.node.json("log", "info", *of)
            self.assertEqual((info["log"], info["durable_lsn"], info["walsvc"]), (mine, 2, True))
        for command in (("read",), ("tail", "-f"), ("log", "info")):
            self.refused(1, "not_found: there is no member n9; `shanghaictl nodes`", *command, "--node", "n9")
            self.refused(2, "--log must be the uuid of a log", *command, "--log", "n1")
            self.refused(2, "--log and --node both say which log", *command, "--log", mine, "--node", "n1")
        self.refused(2, "--log is for a node that is asked", "log", "info", "--data", self.node.data, "--log", mine)
        self.node.ctl("node", "join", "n2", "--host", "127.0.0.1", "--port", "7000")
        self.refused(1, "not_found: n2 has never come: it has no log yet", "read", "--node", "n2")
        self.refused(2, "--endpoint says which node, and --node does", "status", "--node", "n1")

    def test_without_an_endpoint_node_chooses_who_is_asked(self):
        self.node.ctl("append", "one")
        mine = self.node.json("status")["log"]
        env = {name: value for name, value in os.environ.items() if name != "SHANGHAI_ENDPOINT"}
        command = [os.path.join(BIN, "shanghaictl"), "read", "--config", self.node.config, "--format", "raw"]
        for of, code in ((("--node", "n1"), 0), (("--node", "n2"), 2), (("--node", "n1", "--log", mine), 0)):
            done = subprocess.run([*command, *of], env=env, capture_output=True, check=False)
            self.assertEqual((done.returncode, done.stdout), (code, b"one\n" if code == 0 else b""), done.stderr)
        env["SHANGHAI_ENDPOINT"] = self.node.endpoint
        done = subprocess.run([os.path.join(BIN, "shanghaictl"), "read", "--node", "n9"], env=env, capture_output=True,
                              check=False)
        self.assertEqual(done.returncode, 1, done.stderr)

    def test_its_help_tells_of_its_own_node_option_only(self):
        text = self.node.ctl("read", "--help").stdout.decode()
        self.assertEqual(len(re.findall("^ .*--node [A-Z]", text, re.MULTILINE)), 1)
        self.assertIn("--log", text)


if __name__ == "__main__":
    unittest.main()
