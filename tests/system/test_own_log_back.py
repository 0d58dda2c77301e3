"""A node whose disk is set back to an older state, as by a snapshot: its log is fetched back by itself, and goes on; nothing
that was acknowledged is lost, and what was appended meanwhile comes again."""
import os
import shutil
import unittest

from cluster import Cluster
from logs import Appender, crc32c, digest, log_of, read_lines, wait_equal, wait_lines
from shanghai import wait_for

SETTINGS = ("wal: {segment_size: 1MiB, disk_reserve: 1MiB}\n"
            "member: {heartbeat_interval: 500ms, suspect_after: 2s, down_after: 3s}")
MANY = 12000 # entries: some segments
OTHER_BOOT = "11111111-2222-3333-4444-555555555555"


def write_boot(data):
    """The log was last extended under another boot of the machine."""
    lines = f"shanghai boot 1\nkernel {OTHER_BOOT}\n".encode()
    with open(os.path.join(data, "boot"), "wb") as file:
        file.write(lines + b"checksum %08x\n" % crc32c(0, lines))


class OwnLogBack(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(settings=SETTINGS)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.node = self.cluster["n1"]
        self.saved = os.path.join(self.node.dir, "saved")
        self.log = log_of(self.cluster, "n1")

    def append(self, tag, count=MANY, ack="all"):
        appender = Appender(self.node, count, "--ack", ack, "--ack-timeout", "60s", tag=tag)
        appender.start()
        self.assertEqual(appender.summary()["entries"], count)
        return appender.lines

    def save(self):
        self.assertEqual(self.node.stop(), 0)
        shutil.copytree(self.node.data, self.saved)
        self.node.start()
        self.cluster.wait_healthy()

    def set_back(self):
        """The disk is as it was when it was saved, and the machine was started anew."""
        self.assertEqual(self.node.stop(), 0)
        shutil.rmtree(self.node.data)
        shutil.copytree(self.saved, self.node.data)
        write_boot(self.node.data)

    def stop(self, *names):
        for name in names:
            self.assertEqual(self.cluster[name].stop(), 0)

    def start(self, *names):
        for name in names:
            self.cluster[name].spawn()
        for name in names:
            self.cluster[name].wait_ready()

    def is_back(self):
        """It takes appends, and is told of by nobody as fetched back."""
        status = self.node.try_json("status")
        replicas = self.node.try_json("replicas")
        return (status is not None and status["writable"] and replicas is not None and not replicas["fetched_back"])

    def wait_back(self):
        try:
            wait_for(self.is_back, "the log to be back", 90, 0.1)
        except AssertionError as error:
            tails = "\n".join(f"{name}:\n{node.log_tail(25)}" for name, node in self.cluster.nodes.items())
            raise AssertionError(f"{error}\n{self.node.try_json('status')}\n{tails}") from None

    def all_lines(self, count):
        """None: querysvc has not heard of all yet."""
        lines = read_lines(self.node, self.log)
        return lines if len(lines) == count else None

    def check(self, first, *parts):
        """The log begins with these lines, and has each of all others once, in the order of each part."""
        self.wait_back()
        self.cluster.wait_healthy(90)
        logs = wait_equal(self.cluster)
        lines = wait_for(lambda: self.all_lines(logs[self.log]), "the log's lines")
        self.assertEqual(lines[:len(first)], first)
        wanted = first + [line for part in parts for line in part]
        self.assertEqual(len(lines), len(wanted))
        self.assertEqual(sorted(lines), sorted(wanted))
        for part in parts:
            self.assertEqual([line for line in lines if line in set(part)], part)
        for name in ("n2", "n3"):
            wait_lines(self.cluster[name], self.log, lines)
        for node in self.cluster.nodes.values():
            self.assertEqual(node.ctl("log", "verify", "--data", node.data).returncode, 0)

    def forked(self, name="n1"):
        """What is kept aside there of the log."""
        folder = os.path.join(self.cluster[name].data, "forked")
        return [entry for entry in os.listdir(folder) if entry.startswith(self.log)] if os.path.isdir(folder) else []

    def is_fetched_back_first(self):
        """Before it goes on as it is, which it does when nobody can tell for 5 s, as on a busy machine."""
        def noticed():
            return len(self.node.log_lines("behind its copies") + self.node.log_lines("on another chain than its copies"))
        before, alone, self.kept = noticed(), len(self.node.log_lines("it goes on as it is")), self.forked()
        self.set_back()
        self.node.start()
        wait_for(lambda: noticed() > before, "the loss to be noticed", 60)
        self.wait_back()
        return len(self.node.log_lines("it goes on as it is")) == alone

    def test_a_lost_end_is_fetched_back_and_the_log_goes_on(self):
        first = self.append("first")
        self.save()
        second = self.append("second")
        self.assertTrue(any(self.is_fetched_back_first() for _ in range(5)), "others were there to be asked")
        third = self.append("third", 1000)
        self.check(first + second + third)
        self.assertEqual(log_of(self.cluster, "n1"), self.log, "the same log")
        self.assertEqual(self.forked(), self.kept, "nothing is kept aside")

    def test_what_is_appended_alone_comes_again_behind_what_others_hold(self):
        first = self.append("first")
        self.save()
        second = self.append("second")
        self.stop("n2", "n3")
        self.set_back()
        self.node.start()
        alone = self.append("alone", 3000, "local")  # after 5 s: nobody answers
        self.node.wait_logged("it goes on as it is")
        self.start("n2", "n3")
        self.check(first + second, alone)
        self.node.wait_logged("on another chain than its copies")
        self.assertEqual(len(self.forked()), 1)
        later = self.append("later", 100)
        self.check(first + second, alone, later)

    def test_a_member_that_has_the_other_end_gives_way(self):
        first = self.append("first")
        wait_equal(self.cluster)
        self.save()
        self.stop("n3")
        second = self.append("second", ack="quorum")  # by n2
        self.stop("n2")
        self.set_back()
        self.start("n1", "n3")
        self.wait_back()
        other = self.append("other", 5000, "quorum")  # by n3
        before = digest(self.cluster["n3"], self.log)
        self.start("n2")
        self.check(first + second, other)
        self.assertNotEqual(digest(self.cluster["n3"], self.log), before)
        self.assertEqual((len(self.forked("n1")), len(self.forked("n2")), len(self.forked("n3"))), (1, 0, 1))
        for name in ("n1", "n3"):
            self.assertGreaterEqual(self.cluster[name].json("replicas")["counters"]["replaced"], 1, name)
        later = self.append("later", 100)
        self.check(first + second, other, later)


if __name__ == "__main__":
    unittest.main()
