"""Who follows a node's events gets each once and in order while its membersvc is killed again and again and the cluster
goes on: others join, leave, and are killed."""
import json
import os
import random
import subprocess
import threading
import unittest

from cluster import PATIENT_TIMES, Cluster
from shanghai import wait_for

KILLS = 100 if os.environ.get("SHANGHAI_LONG") == "1" else 30
MOST_PAUSE_S = 0.5  # between two kills: some meet a start, some a write, some a quiet membersvc


class Follower:
    """`shanghaictl events -f` of a node, into a file."""

    def __init__(self, test, node):
        self.path = os.path.join(node.dir, "followed")
        with open(self.path, "wb") as out:
            self.process = subprocess.Popen(node.ctl_command("--format", "json", "events", "-f"), stdout=out)
        test.addCleanup(self.process.wait)
        test.addCleanup(self.process.kill)

    def events(self):
        with open(self.path, encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.endswith("\n")]

    def wait_told(self, event, name, generation, times=1):
        def told():
            return sum((e["event"], e["id"], e["generation"]) == (event, name, generation) for e in self.events())
        wait_for(lambda: told() >= times, f"{event} of {name} to be told {times} times")


class Killer(threading.Thread):
    """Kills a service as often as is wanted, at random moments of its life."""

    def __init__(self, node, service, kills):
        super().__init__()
        self.node, self.service, self.left = node, service, kills
        self.is_over = threading.Event()

    def run(self):
        while self.left > 0 and not self.is_over.wait(random.uniform(0, MOST_PAUSE_S)):
            try:
                self.node.kill(self.service)
            except ProcessLookupError:  # it is dead already, and was reported as running
                continue
            self.left -= 1

    def stop(self):
        self.is_over.set()
        self.join()


class Followed(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(3, PATIENT_TIMES)
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def come_and_go(self, follower):
        """A node that isn't there joins by one member and leaves by another."""
        answer = self.cluster["n2"].json("node", "join", "n4", "--host", "127.0.0.1", "--port", "7000")
        follower.wait_told("joining", "n4", answer["generation"])
        self.cluster.wait_status("n4", "joining", seen_by=["n3"])
        self.cluster["n3"].ctl("node", "leave", "n4")
        follower.wait_told("left", "n4", answer["generation"])
        self.cluster.wait_status("n4", "left", seen_by=["n2"])
        return answer["generation"]

    def restart_another(self, follower, times):
        old = self.cluster["n3"].kill("membersvc")
        wait_for(lambda: self.cluster["n3"].pid("membersvc") != old, "another membersvc")
        follower.wait_told("restarted", "n3", 1, times)

    def wait_all_told(self, follower, node):
        """What was told is what the node has, byte for byte."""
        wait_for(lambda: follower.events() == node.events(), "all events to be told")
        return follower.events()

    def test_each_event_once_and_in_order(self):
        node = self.cluster["n1"]
        follower = Follower(self, node)
        killer = Killer(node, "membersvc", KILLS)
        killer.start()
        self.addCleanup(killer.stop)
        generations, restarts = [], 0
        while killer.is_alive():
            generations.append(self.come_and_go(follower))
            restarts += 1
            self.restart_another(follower, restarts)
        self.assertEqual(killer.left, 0)
        self.cluster.wait_healthy()
        told = self.wait_all_told(follower, node)
        self.assertEqual([event["number"] for event in told], list(range(1, len(told) + 1)))
        self.assertEqual(len({event["series"] for event in told}), 1)
        self.assertEqual(generations, list(range(2, len(generations) + 2)))
        self.assertEqual([(event["event"], event["generation"]) for event in told if event["id"] == "n4"],
                         [(what, generation) for generation in generations for what in ("joining", "left")])
        self.assertEqual(sum((event["event"], event["id"]) == ("restarted", "n3") for event in told), restarts)
        self.assertEqual({event["event"] for event in told if event["id"] in ("n1", "n2", "n3")},
                         {"joining", "founded", "up", "restarted"})
        for other in ("n2", "n3"):
            self.assertNotIn(("down", "n1"), self.cluster.events(other))
        print(f"\ncount: kills of a followed membersvc {KILLS}\nfigure: {len(told)} events told over {KILLS} kills, "
              f"{len(generations)} joins and leaves and {restarts} restarts of another", flush=True)


if __name__ == "__main__":
    unittest.main()
