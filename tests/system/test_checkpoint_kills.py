"""Both ends of a transfer of a view are killed at all times: the views are equal afterwards, and each addition counts
once."""
import json
import os
import random
import shlex
import signal
import subprocess
import time
import unittest

from cluster import TIMES, Cluster
from logs import log_of
from shanghai import BIN, SERVICES, wait_for
from trimmed import (VIEW_SETTINGS, checkpoint_files, checkpoint_holds, fill, first_lsn, lose_view, trim, trim_all,
                     wait_equal_views, wait_let_go, write, write_keys)

SETTINGS = VIEW_SETTINGS + TIMES
LONG = bool(os.environ.get("SHANGHAI_LONG"))
SEED = int(os.environ.get("SHANGHAI_SEED", random.SystemRandom().randrange(1 << 32)))
MANY = 100000
KEYS = 50000
ROUNDS = 20 if LONG else 3
KILLS = 4  # a round
# (whose querysvc, where): a view of so many keys comes in several pieces
POINTS = (("n2", "checkpoint_piece=kill@1"), ("n2", "checkpoint_piece=kill@3"), ("n2", "checkpoint_ready=kill@1"),
          ("n2", "checkpoint_installed=kill@1"), ("n1", "checkpoint_serve=kill@1"), ("n1", "checkpoint_serve=kill@3"))


def has_failpoints():
    out = subprocess.run([os.path.join(BIN, "shanghaictl"), "--format", "json", "version"], capture_output=True, check=True)
    return json.loads(out.stdout).get("failpoints", False)


class Transfer(unittest.TestCase):
    """n1 and n2; of n1's log only the end is left, and n2 loses its view again and again."""

    def start(self, keys, program=None):
        self.cluster = Cluster(2, SETTINGS)
        self.addCleanup(self.cluster.close)
        for node in self.cluster.nodes.values() if program else ():
            program(node)
            node.write_config(self.cluster.members)
        self.n1, self.n2 = self.cluster.start()["n1"], self.cluster["n2"]
        write_keys(self.n1, "key", keys)
        self.log = log_of(self.cluster, "n1")
        wait_equal_views(self.cluster)
        trim_all(self.cluster, self.log, keys)

    def lose_view(self):
        self.n2.kill_all()
        lose_view(self.n2)

    def check(self, added):
        after = wait_equal_views(self.cluster)
        self.assertEqual(sum(row["counter"] for row in after.values() if "counter" in row), added)


class Steps(Transfer):
    def setUp(self):
        if not has_failpoints():
            self.skipTest("a build without failpoints")

    @staticmethod
    def program(node):
        """A querysvc that meets its fault in the life that finds the folder `armed`."""
        path = os.path.join(node.dir, "querysvc")
        armed = os.path.join(node.dir, "armed")
        with open(path, "w", encoding="ascii") as file:
            file.write(f"#!/bin/sh\nif rmdir {shlex.quote(armed)} 2>/dev/null; then\n"
                       f"    export SHANGHAI_FAILPOINT=$(cat {shlex.quote(node.dir)}/point)\nfi\n"
                       f"exec {shlex.quote(os.path.join(BIN, 'querysvc'))} \"$@\"\n")
        os.chmod(path, 0o700)
        node.settings = node.settings.replace("supervisor: {", "supervisor: {children: [{service: walsvc}, "
                                              "{service: membersvc}, {service: replsvc}, "
                                              f"{{service: querysvc, program: {path}}}], ")

    def arm(self, node, point):
        with open(os.path.join(node.dir, "point"), "w", encoding="ascii") as file:
            file.write(point)
        os.mkdir(os.path.join(node.dir, "armed"))

    def test_a_kill_at_each_step(self):
        self.start(KEYS, self.program)
        for name, point in POINTS:
            with self.subTest(name=name, point=point):
                self.lose_view()
                self.arm(self.cluster[name], point)
                if name == "n1":
                    self.n1.kill("querysvc")
                    self.n1.wait_ready()
                restarts = {name: 0 if name == "n2" else self.n1.tree()["querysvc"]["restarts"]}
                self.n2.start()
                wait_for(lambda name=name: self.cluster[name].tree()["querysvc"]["restarts"] > restarts[name],
                         "the kill", 60)
                self.check(KEYS)
                if "installed" not in point:  # n1 is not told then, and waits for more questions
                    wait_let_go(self.cluster, self.log)
        print(f"\ncount: kills at a step {len(POINTS)}", flush=True)


class AtAllTimes(Transfer):
    def is_over(self):
        return bool(self.n2.log_lines("the view was merged with a member's")[self.merged:])

    def test_kills_of_both_ends(self):
        print(f"\nseed {SEED}")
        chance = random.Random(SEED)
        self.start(KEYS)
        killed, added = 0, KEYS
        for _ in range(ROUNDS):
            self.merged = len(self.n2.log_lines("the view was merged with a member's"))
            self.lose_view()
            self.n2.spawn()  # it may be over before anybody has said that n2 is ready
            for _ in range(KILLS):
                wait_for(lambda: "out-0" in checkpoint_files(self.n1) or self.is_over(), "a transfer", 60, 0.001)
                if self.is_over():
                    break
                time.sleep(chance.uniform(0, 0.2))  # somewhere in it
                chance.choice((self.n1, self.n2)).kill(chance.choice(("querysvc", "replsvc")))
                killed += 1
            self.n2.wait_ready()
            write(self.n1, ["incr n0 1"])
            added += 1
            self.check(added)
        print(f"count: daemons killed in a transfer {killed}", flush=True)
        self.assertGreater(killed, 0)

    @staticmethod
    def patient(node):
        """Its supervisor lets who is stopped be."""
        services = ", ".join(f"{{service: {name}, watchdog: 1h}}" for name in SERVICES)
        node.settings = node.settings.replace("supervisor: {", f"supervisor: {{children: [{services}], ")

    def try_to_stop(self):
        """n2's querysvc, while it fetches n1's view; its pid, or None when it was through before it stood."""
        self.lose_view()
        self.merged = len(self.n2.log_lines("the view was merged with a member's"))
        self.n2.spawn()
        wait_for(lambda: "out-0" in checkpoint_files(self.n1) or self.is_over(), "n1 to make a checkpoint", 60, 0.0005)
        pid = self.n2.kill("querysvc", signal.SIGSTOP)
        if not self.is_over() and checkpoint_holds(self.n1, self.log) == ["checkpoint n2"]:
            self.addCleanup(lambda: os.kill(pid, signal.SIGCONT) if self.n2.is_left(pid) else None)
            return pid
        os.kill(pid, signal.SIGCONT)
        self.n2.wait_ready()
        wait_let_go(self.cluster, self.log)
        return None

    def test_what_follows_a_checkpoint_is_held_until_it_is_there(self):
        self.start(MANY, self.patient)
        pid = wait_for(self.try_to_stop, "n2's querysvc to be stopped in the middle", 300)
        fill(self.n1, "later")
        wait_for(lambda: "reader checkpoint n2" in trim(self.n1, self.log).get("held_by", []), "what follows to be held")
        held = first_lsn(self.n1, self.log)
        self.assertLessEqual(held, 2 * MANY + 1)
        os.kill(pid, signal.SIGCONT)
        self.check(MANY + 12 * 100)
        self.assertEqual(len(self.n2.log_lines("the view was merged with a member's")), self.merged + 1)
        wait_let_go(self.cluster, self.log)
        wait_for(lambda: trim(self.n1, self.log).get("first_lsn", 0) > held, "it to be trimmed")


if __name__ == "__main__":
    unittest.main()
