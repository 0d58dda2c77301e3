"""Three nodes on a network of their own: pulled cables, ways that are closed in one direction, services that are
stopped and killed, nodes that die, move, and come back."""
import os
import signal
import unittest

from cluster import PATIENT_TIMES, SUPERVISOR, Cluster
from netns import Network, why_no_networks
from shanghai import member_row, wait_for

DOWN_MS = 6000
# Nobody is suspect who waits for the disk for some seconds. What was under way when a cable was pulled may come when it is
# plugged in again, and its sender's clock then seems to be far away.
TIMES = f"member: {{heartbeat_interval: 500ms, suspect_after: 5s, down_after: {DOWN_MS}ms, clock_drift: 1h}}"
WATCHDOG = "20s"
NO_NETWORKS = why_no_networks()
ABSENCE = ["suspect", "down", "up"]


@unittest.skipIf(NO_NETWORKS, NO_NETWORKS)
class OnANetwork(unittest.TestCase):
    supervisor = SUPERVISOR
    times = TIMES

    def setUp(self):
        self.network = Network()
        self.addCleanup(self.network.close)
        self.cluster = Cluster(3, self.times, self.supervisor, network=self.network)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.names = list(self.cluster.nodes)
        self.before = {name: self.cluster.last_event(name) for name in self.names}

    def seen(self, by, of):
        """What node `by` has told of member `of` since the start."""
        return [event for event, name in self.cluster.events(by, self.before[by]) if name == of]

    def wait_seen(self, by, of, events):
        try:
            wait_for(lambda: self.seen(by, of) == events, "events")
        except AssertionError:
            self.assertEqual(self.seen(by, of), events, f"{of} as {by} saw it\n{self.cluster[by].log_tail()}")

    def wait_health(self, name, health, *reasons, later=()):
        """later: reasons that come, or don't, when it lasts."""
        status = {}

        def arrived():
            status.update(self.cluster[name].json("status"))
            told = [reason for reason in status["reasons"] if reason not in later]
            return (status["health"], told) == (health, list(reasons))
        try:
            wait_for(arrived, f"{name} to be {health}", pause=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}: {reasons}, not {status}") from None

    def assert_nothing_seen_of(self, *members):
        for by in self.names:
            for of in members:
                self.assertEqual(self.seen(by, of), [], f"{of} as {by} saw it")


class Links(OnANetwork):
    def cut_off_and_back(self, cut, mend):
        cut("n3")
        self.cluster.wait_status("n3", "down", seen_by=("n1", "n2"))
        for other in ("n1", "n2"):
            self.cluster.wait_status(other, "down", seen_by=("n3",))
        self.wait_health("n1", "degraded", "n3 is down")
        mend("n3")
        self.cluster.wait_equal()
        for other in ("n1", "n2"):
            self.wait_seen(other, "n3", ABSENCE)
            self.wait_seen("n3", other, ABSENCE)
        self.assertEqual(self.seen("n1", "n2") + self.seen("n2", "n1"), [])

    def test_a_pulled_cable(self):
        self.cut_off_and_back(self.network.pull_cable, self.network.plug_cable)

    def test_an_interface_that_goes_down(self):
        self.cut_off_and_back(lambda name: self.network.ip(name, "link", "set", "eth0", "down"),
                              lambda name: self.network.ip(name, "link", "set", "eth0", "up"))

    def way(self, do, by, to):
        """do: add, so that messages of members get from `by` to `to` no more; del, so that they do again. What goes the
        other way does, with the answers of TCP."""
        node = self.cluster[to]
        self.network.ip(by, "rule", do, "to", f"{node.host}/32", "ipproto", "tcp", "dport", str(node.port + 2),
                        "blackhole")

    def wait_silence(self, of, by):
        """Twice as long as makes a member down, if it is so for all."""
        wait_for(lambda: self.cluster.rows(by)[of]["heartbeat_age_ms"] > 2 * DOWN_MS, f"{by} to miss {of}")

    def test_messages_one_way_only_make_nobody_down(self):
        self.way("add", by="n1", to="n2")
        self.wait_silence(of="n1", by="n2")
        self.wait_health("n2", "degraded", "nothing comes from n1, while others reach it")
        self.assertTrue(self.cluster.rows("n2")["n1"]["unreachable"])
        self.wait_health("n3", "healthy")
        self.way("del", by="n1", to="n2")
        self.cluster.wait_equal()
        self.wait_seen("n2", "n1", ["unreachable", "reachable"])
        self.assert_nothing_seen_of("n2", "n3")
        self.assertEqual(self.seen("n3", "n1"), [])

    def test_who_cannot_speak_is_down_for_the_others_and_hears_them(self):
        for other in ("n1", "n2"):
            self.way("add", by="n3", to=other)
        self.cluster.wait_status("n3", "down", seen_by=("n1", "n2"))
        self.wait_health("n1", "degraded", "n3 is down")
        for other in ("n1", "n2"):
            self.way("del", by="n3", to=other)
        self.cluster.wait_equal()
        for other in ("n1", "n2"):
            self.wait_seen(other, "n3", ABSENCE)
        self.assert_nothing_seen_of("n1", "n2")

    def test_who_cannot_hear_misses_all_and_is_missed_by_nobody(self):
        for other in ("n1", "n2"):
            self.way("add", by=other, to="n3")
        for other in ("n1", "n2"):
            self.cluster.wait_status(other, "down", seen_by=("n3",))
            self.wait_silence(of=other, by="n3")
        for other in ("n1", "n2"):
            self.wait_health(other, "healthy")
            self.way("del", by=other, to="n3")
        self.cluster.wait_equal()
        for other in ("n1", "n2"):
            self.wait_seen("n3", other, ABSENCE)
        self.assertEqual(self.seen("n1", "n2") + self.seen("n2", "n1"), [])
        self.assertEqual(self.seen("n1", "n3") + self.seen("n2", "n3"), [])

    def test_two_that_cannot_reach_each_other_are_not_down(self):
        """No packet gets from n1 to n2: neither has a connection to the other."""
        route = ("blackhole", f"{self.cluster['n2'].host}/32")
        self.network.ip("n1", "route", "add", *route)
        self.wait_silence(of="n1", by="n2")
        self.wait_silence(of="n2", by="n1")
        for name, other in (("n1", "n2"), ("n2", "n1")):
            self.wait_health(name, "degraded", f"nothing comes from {other}, while others reach it",
                             later=[f"{other} does not tell of its copy of this log"])
        self.network.ip("n1", "route", "del", *route)
        self.cluster.wait_equal()
        self.wait_seen("n1", "n2", ["unreachable", "reachable"])
        self.wait_seen("n2", "n1", ["unreachable", "reachable"])
        self.assert_nothing_seen_of("n3")
        self.assertEqual(self.seen("n3", "n1") + self.seen("n3", "n2"), [])


class OnServices(OnANetwork):
    supervisor = ("supervisor: {intensity: 1000, period: 60s, backoff: false, children: [{service: walsvc}, "
                  f"{{service: membersvc, watchdog: {WATCHDOG}}}, {{service: replsvc}}, {{service: querysvc}}]}}")

    def counters(self, name):
        return self.cluster[name].json("nodes")["counters"]

    def identity(self, of, by="n1"):
        row = self.cluster.rows(by)[of]
        return {key: row[key] for key in ("log", "generation", "incarnation", "boot", "host", "port")}

    def stop_n3(self):
        return self.cluster["n3"].kill("membersvc", signal.SIGSTOP)


class Services(OnServices):
    def test_a_long_stop_makes_down_and_accuses_nobody(self):
        pid = self.stop_n3()
        self.cluster.wait_status("n3", "down", seen_by=("n1", "n2"))
        os.kill(pid, signal.SIGCONT)
        self.cluster.wait_equal()
        for other in ("n1", "n2"):
            self.wait_seen(other, "n3", ABSENCE)
        self.assertEqual(self.cluster["n3"].pid("membersvc"), pid)
        self.assert_nothing_seen_of("n1", "n2")
        self.assertEqual(self.counters("n3")["downs"] + self.counters("n3")["suspicions"], 0)

    def test_a_stop_without_end_is_ended_by_the_watchdog(self):
        before = self.identity("n3")
        pid = self.stop_n3()
        wait_for(lambda: self.cluster["n3"].tree()["membersvc"]["pid"] not in (pid, 0), "another membersvc")
        self.cluster.wait_equal()
        for other in ("n1", "n2"):
            self.wait_seen(other, "n3", ["suspect", "down", "restarted", "up"])
        self.assert_nothing_seen_of("n1", "n2")
        self.assertEqual(self.identity("n3")["log"], before["log"])


class Nodes(OnANetwork):
    def test_a_killed_node_is_down_until_it_is_started(self):
        log = self.cluster.rows("n1")["n3"]["log"]
        self.cluster["n3"].kill_all()
        self.cluster.wait_status("n3", "down", seen_by=("n1", "n2"))
        self.cluster["n3"].start()
        self.cluster.wait_equal()
        for other in ("n1", "n2"):
            self.wait_seen(other, "n3", ["suspect", "down", "restarted", "up"])
        self.assert_nothing_seen_of("n1", "n2")
        self.assertEqual(self.cluster.rows("n1")["n3"]["log"], log)

class NobodyIsMissed(OnServices):
    """Who is away for a moment only, however busy the machine."""
    times = PATIENT_TIMES

    def test_a_short_stop_is_no_absence(self):
        pid = self.stop_n3()
        wait_for(lambda: self.cluster.rows("n1")["n3"]["heartbeat_age_ms"] > 1000, "probes")  # from 1.5 intervals on
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: self.counters("n3")["doubts"] > 0, "self-doubt")
        self.cluster.wait_equal()
        self.assert_nothing_seen_of(*self.names)

    def test_a_killed_membersvc_keeps_its_identity(self):
        before = self.identity("n3")
        pid = self.cluster["n3"].kill("membersvc")
        wait_for(lambda: self.cluster["n3"].pid("membersvc") != pid, "another membersvc")
        for other in ("n1", "n2"):
            self.wait_seen(other, "n3", ["restarted"])
        self.cluster.wait_equal()
        after = self.identity("n3")
        self.assertNotEqual(after.pop("boot"), before.pop("boot"))
        before["incarnation"] += 1
        self.assertEqual(after, before)
        self.assert_nothing_seen_of("n1", "n2")

    def test_all_nodes_at_once(self):
        before = {name: self.cluster.rows("n1")[name] for name in self.names}
        for node in self.cluster.nodes.values():
            node.kill_all()
        self.cluster.start()
        self.cluster.wait_equal()
        for name, row in self.cluster.rows("n1").items():
            self.assertEqual((row["log"], row["generation"]), (before[name]["log"], before[name]["generation"]))
            self.assertGreater(row["incarnation"], before[name]["incarnation"])
        for by in self.names:
            for of in self.names:
                self.wait_seen(by, of, ["restarted"] if by != of else [])

    def test_a_node_that_comes_with_another_address_is_found(self):
        node = self.cluster["n3"]
        self.assertEqual(node.stop(), 0)
        self.network.ip("n3", "address", "del", f"{node.host}/24", "dev", "eth0")
        self.network.ip("n3", "address", "add", "10.77.0.99/24", "dev", "eth0")
        node.write_config(self.cluster.members[:2] + [member_row("n3", "10.77.0.99", 5000)])
        node.start()
        for other in ("n1", "n2"):
            wait_for(lambda other=other: "moved" in self.seen(other, "n3"), "its move")
        self.cluster.wait_equal()
        row = self.cluster.rows("n1")["n3"]
        self.assertEqual((row["host"], row["port"]), ("10.77.0.99", 5000))
        self.assert_nothing_seen_of("n1", "n2")
        self.cluster["n1"].kill_all()
        self.cluster["n1"].start()  # its file has the old address
        self.cluster.wait_equal()
        self.assertEqual(self.cluster.rows("n1")["n3"]["host"], "10.77.0.99")


if __name__ == "__main__":
    unittest.main()