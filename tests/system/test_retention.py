"""What keeps a log, with real daemons: trims, retention, holds, the scrubber, and what log info says of them."""
import json
import os
import signal
import subprocess
import unittest

from shanghai import BIN, Node, wait_for
from test_torn_tail import has_failpoints

LINE = 100
SMALL = "segment_size: 1MiB"
MEMBER, READER = 1, 3
SUPERVISOR = "supervisor: {intensity: 1000, period: 60s, backoff: false}"


def lines(first, last):
    return b"".join(b"%0*d\n" % (LINE, i) for i in range(first, last + 1))


def content(path):
    """None without such a file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


class Kept(Node):
    """A node whose log has several segments of 1 MiB."""

    def __init__(self, settings="", env=None):
        super().__init__(f"wal: {{{SMALL}{settings}}}", SUPERVISOR, env)
        self.last = 0

    def fill(self, count=50000):
        self.ctl("append", "--batch", "100", "-", input=lines(self.last + 1, self.last + count))
        self.last += count
        return self

    def write_settings(self, settings):
        with open(self.config, encoding="ascii") as file:
            text = file.read().splitlines(True)
        with open(self.config, "w", encoding="ascii") as file:
            file.writelines(f"wal: {{{SMALL}{settings}}}\n" if line.startswith("wal:") else line for line in text)

    def set(self, settings):
        self.write_settings(settings)
        self.process.send_signal(signal.SIGHUP)

    def info(self):
        return self.json("log", "info")

    def settled(self):
        """The same, once the view has followed to the end, and holds no sealed segment any more."""
        def has_followed():
            info = self.info()
            view = next((hold for hold in info["holds"] if hold["kind"] == "view"), None)
            return info if view and view["lsn"] >= info["segments"][-1]["base_lsn"] else None
        info = wait_for(has_followed, "the view to follow", 120)
        info["holds"] = [hold for hold in info["holds"] if hold["kind"] != "view"]
        return info

    def segments(self):
        return sorted(name for name in os.listdir(self.log_dir()) if name.endswith(".seg"))

    def hold(self, kind, name, *rest):
        out = subprocess.run([os.path.join(BIN, "link_hold"), f"ipc://{self.run}/wal", str(kind), name,
                              *[str(value) for value in rest]], capture_output=True, check=True, timeout=60)
        return [" ".join(line.split()[:2]) for line in out.stdout.decode().splitlines()]

    def check_reads(self, first):
        """Everything from the first LSN left on is there."""
        got = self.ctl("--format", "raw", "read", "--from", str(first)).stdout
        assert got == lines(first, self.last), (first, len(got))


class Trim(unittest.TestCase):
    def test_whole_segments_below_the_lsn_go(self):
        with Kept() as node:
            node.start().fill()
            before = node.settled()["segments"]
            self.assertGreaterEqual(len(before), 5)
            third = before[2]["base_lsn"]
            said = node.json("log", "trim", "--before", str(third + 5), "--dry-run")
            self.assertEqual((said["segments"], said["first_lsn"], said["dry_run"]), (2, third, True))
            out = node.ctl("log", "trim", "--before", str(third + 5), endpoint=node.tcp, check=False)
            self.assertEqual(out.returncode, 3)
            self.assertIn(b"forbidden", out.stderr)
            self.assertEqual(len(node.segments()), len(before))
            done = node.json("log", "trim", "--before", str(third + 5))
            self.assertEqual((done["segments"], done["first_lsn"], done["held_by"]), (2, third, []))
            self.assertEqual(done["bytes"], before[0]["file_bytes"] + before[1]["file_bytes"])
            self.assertEqual(len(node.segments()), len(before) - 2)
            again = node.ctl("log", "trim", "--before", str(third + 5))
            self.assertIn(b"0 segments", again.stdout)
            out = node.ctl("read", "--count", "1", check=False)
            self.assertEqual(out.returncode, 1)
            self.assertIn(b"trimmed", out.stderr)
            self.assertIn(str(third).encode(), out.stderr)
            node.check_reads(third)
            self.assertEqual(node.json("status")["first_lsn"], third)
            node.kill("walsvc")
            node.wait_ready()
            node.fill(20000).check_reads(third)
            self.assertEqual(node.ctl("log", "verify", "--data", node.data).returncode, 0)
            node.settled()
            everything = node.json("log", "trim", "--before", str(2**64 - 1))
            self.assertEqual(everything["first_lsn"], node.info()["segments"][0]["base_lsn"])
            self.assertEqual(len(node.segments()), 1)

    def test_what_is_trimmed_is_no_longer_open(self):
        """Or its room on the disk would not be free."""
        with Kept() as node:
            node.start().fill()
            pid = node.pid("querysvc")

            def deleted():
                links = (f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd"))
                return [link for link in links if os.path.lexists(link) and "(deleted)" in os.readlink(link)]
            for name in node.segments()[:-1]:
                node.ctl("read", "--from", str(int(name[:20]) + 5), "--count", "10")
            node.settled()
            self.assertGreaterEqual(node.json("log", "trim", "--before", str(node.last))["segments"], 3)
            wait_for(lambda: not deleted(), "trimmed files to be closed")

    def test_wrong_usage(self):
        with Kept() as node:
            node.start()
            for arguments in ((), ("--before",), ("--before", "x"), ("--before", "5", "more"),
                              ("--dry-run", "--release", "n2")):
                self.assertEqual(node.ctl("log", "trim", *arguments, check=False).returncode, 2, arguments)
            out = node.ctl("log", "trim", "--release", "nobody", check=False)
            self.assertEqual(out.returncode, 1)
            self.assertIn(b"no hold of that name", out.stderr)

    def test_what_is_held_is_named_and_survives_a_kill(self):
        with Kept() as node:
            node.start().fill()
            second, third = (segment["base_lsn"] for segment in node.info()["segments"][1:3])
            self.assertEqual(node.hold(MEMBER, "n2", second, 0), ["ok 1"])
            self.assertEqual(node.hold(READER, "r", third, 600000), ["ok 1"])
            info = node.settled()
            self.assertEqual(info["segments"][0]["held_by"], ["retention"])
            self.assertEqual(info["segments"][1]["held_by"], ["retention", "member n2"])
            self.assertEqual(info["segments"][2]["held_by"], ["retention", "member n2", "reader r"])
            self.assertEqual(info["segments"][-1]["held_by"], ["being written"])
            self.assertEqual({(hold["kind"], hold["name"]): hold["lsn"] for hold in info["holds"]},
                             {("member", "n2"): second, ("reader", "r"): third})
            text = node.ctl("log", "info").stdout.decode()
            self.assertIn("retention, member n2, reader r", text)
            node.kill("walsvc")
            node.wait_ready()
            done = node.json("log", "trim", "--before", str(node.last))
            self.assertEqual((done["segments"], done["held_by"]), (1, ["member n2"]))
            out = node.ctl("--format", "json", "log", "trim", "--before", str(node.last), check=False)
            self.assertEqual(out.returncode, 1)
            self.assertEqual(json.loads(out.stdout)["held_by"], ["member n2"])
            self.assertEqual(node.hold(READER, "late", 1, 1000), [f"trimmed {second}"])
            self.assertEqual(node.json("log", "trim", "--before", str(node.last), "--release", "n2")["first_lsn"], third)
            self.assertEqual(node.hold(READER, "r", "remove"), [f"ok {third}"])
            self.assertEqual(node.json("log", "trim", "--before", str(2**63))["held_by"], [])
            self.assertEqual(len(node.segments()), 1)
            node.check_reads(node.info()["segments"][0]["base_lsn"])

    def test_holds_are_bounded(self):
        with Kept() as node:
            node.start().settled()  # the view has one of them
            answers = node.hold(READER, "many", 1, 60000, 1030)
            self.assertEqual(answers, ["ok 1"] * 1023 + ["overloaded 0"] * 7)
            self.assertEqual(len(node.info()["holds"]), 1024)
            node.ctl("log", "info")

    @unittest.skipUnless(has_failpoints(), "a build without failpoints")
    def test_a_kill_at_each_step(self):
        for point in ("trim_unlinked", "trim_dir_synced"):
            for nth in (1, 2, 3):
                with Kept(env={"SHANGHAI_FAILPOINT": f"{point}=kill@{nth}"}) as node:
                    node.start().fill()
                    target = node.settled()["segments"][4]["base_lsn"]
                    # The request is sent again to each next walsvc, until nothing is left to do.
                    done = node.json("--timeout", "60s", "log", "trim", "--before", str(target))
                    self.assertEqual(done["first_lsn"], target)
                    self.assertGreaterEqual(node.tree()["walsvc"]["restarts"], 1)
                    node.wait_ready()
                    node.fill(1000).check_reads(target)
                    self.assertEqual(node.ctl("log", "verify", "--data", node.data).returncode, 0)

    @unittest.skipUnless(has_failpoints(), "a build without failpoints")
    def test_a_kill_after_a_hold_is_written(self):
        with Kept() as node:
            node.start().fill()
            node.stop()
            node.env["SHANGHAI_FAILPOINT"] = "holds_written=kill"
            node.start()
            self.assertEqual(node.hold(MEMBER, "n2", 1, 0), ["ok 1"])  # by the next walsvc, which knows it already
            self.assertGreaterEqual(node.tree()["walsvc"]["restarts"], 1)  # the view's hold may have been the first
            node.wait_ready()
            self.assertEqual(node.settled()["holds"][0]["name"], "n2")


class Retention(unittest.TestCase):
    def test_bytes_by_reload_and_while_appending(self):
        with Kept() as node:
            node.start().fill()
            self.assertGreaterEqual(len(node.segments()), 5)
            node.set(", retention_bytes: 3MiB")
            wait_for(lambda: len(node.segments()) <= 3, "retention")
            for _ in range(3):
                node.fill(20000)
                wait_for(lambda: len(node.segments()) <= 3, "retention")
            first = node.info()["segments"][0]["base_lsn"]
            self.assertGreater(first, 1)
            node.check_reads(first)

    def test_age(self):
        with Kept() as node:
            node.start().fill()
            node.set(", retention_age: 1s")
            wait_for(lambda: len(node.segments()) == 1, "retention")
            node.check_reads(node.info()["segments"][0]["base_lsn"])

    def test_a_member_that_is_away_too_long_is_broken_with_an_alarm(self):
        with Kept(", retention_bytes: 2MiB") as node:
            node.start()
            self.assertEqual(node.hold(MEMBER, "n2", 1, 0), ["ok 1"])
            node.fill()
            self.assertEqual(node.settled()["segments"][0]["base_lsn"], 1)
            self.assertEqual(node.info()["segments"][0]["held_by"], ["member n2"])
            node.set(", retention_bytes: 2MiB, member_hold_max: 1MiB")
            wait_for(lambda: len(node.segments()) <= 2, "the hold to break")
            node.wait_logged("a hold is broken")
            hold = node.settled()["holds"][0]
            self.assertTrue(hold["broken"])
            self.assertIn(b"must begin anew", node.ctl("log", "info").stdout)
            first = node.info()["first_lsn"]
            self.assertEqual(node.hold(MEMBER, "n2", 1, 0), [f"trimmed {first}"])
            self.assertEqual(node.hold(MEMBER, "n2", first, 0), [f"ok {first}"])
            self.assertFalse(node.settled()["holds"][0]["broken"])

    def test_damage_of_what_is_kept_beside_the_segments_deletes_none(self):
        with Kept() as node:
            node.start().fill()
            self.assertEqual(node.hold(MEMBER, "n2", 1, 0), ["ok 1"])
            self.assertEqual(node.stop(), 0)
            before = node.segments()
            for name in ("holds", "scrub"):
                with open(os.path.join(node.log_dir(), name), "r+b") as file:
                    file.write(b"garbage")
            node.write_settings(", retention_bytes: 1MiB")
            node.start().fill(10)
            node.wait_logged("the register of holds is damaged")
            self.assertEqual(node.segments()[:len(before)], before)
            self.assertEqual(node.settled()["segments"][0]["held_by"], ["member lost-register"])
            node.ctl("log", "trim", "--release", "lost-register")
            wait_for(lambda: len(node.segments()) == 1, "retention")


class Info(unittest.TestCase):
    def test_what_the_files_tell_when_walsvc_is_away(self):
        with Kept() as node:
            node.start().fill()
            of_node = node.info()
            self.assertTrue(of_node["walsvc"])
            for name in ("retention", "disk", "scrub", "holds", "damages"):
                self.assertIn(name, of_node)
            self.assertEqual(of_node["disk"]["next_segment"], "ready")
            node.stop_service("walsvc")
            wait_for(lambda: not node.info()["walsvc"], "querysvc to notice")
            away = node.info()
            offline = node.json("log", "info", "--data", node.data)
            for other in (away, offline):
                self.assertEqual([segment["base_lsn"] for segment in other["segments"]],
                                 [segment["base_lsn"] for segment in of_node["segments"]])
                self.assertEqual([segment["last_lsn"] for segment in other["segments"]],
                                 [segment["last_lsn"] for segment in of_node["segments"]])
                self.assertIsNone(other["segments"][0]["held_by"])
            self.assertIn(b"does not answer", node.ctl("log", "info").stdout)
            self.assertNotIn(b"walsvc", node.ctl("log", "info", "--data", node.data).stdout)


    def test_a_log_of_thousands_of_segments(self):
        with Kept() as node:
            subprocess.run([os.path.join(BIN, "many_segments"), node.data, "2500"], check=True, timeout=120)
            count = len(node.segments())
            self.assertGreaterEqual(count, 2500)
            node.start()
            self.assertEqual(node.settled()["segments"][0]["held_by"], ["retention", "member lost-register"])
            node.ctl("log", "trim", "--release", "lost-register")  # nobody has written a register so far
            info = node.info()
            self.assertEqual(len(info["segments"]), count)
            bases = [segment["base_lsn"] for segment in info["segments"]]
            self.assertEqual(bases, sorted(set(bases)))
            self.assertEqual([segment["held_by"] for segment in info["segments"]],
                             [["retention"]] * (count - 1) + [["being written"]])
            self.assertEqual(info["segments"][-1]["last_lsn"], info["durable_lsn"])
            self.assertEqual(len(node.ctl("log", "info").stdout.splitlines()), count + 11)  # with the view's hold
            target = bases[2400]
            done = node.json("--timeout", "60s", "log", "trim", "--before", str(target))
            self.assertEqual((done["segments"], done["first_lsn"]), (2400, target))
            self.assertEqual(len(node.segments()), count - 2400)
            self.assertEqual(node.ctl("log", "verify", "--data", node.data).returncode, 0)


class Scrub(unittest.TestCase):
    def test_damage_is_found_named_and_shown(self):
        with Kept(", scrub_interval: 1s, scrub_rate: 1GiB") as node:
            node.start().fill()
            path = os.path.join(node.log_dir(), node.segments()[1])
            with open(path, "r+b") as file:
                file.seek(500000)
                byte = file.read(1)
                file.seek(500000)
                file.write(bytes([byte[0] ^ 1]))
            wait_for(lambda: node.log_lines("the scrubber has found damage"), "the scrubber")
            info = wait_for(lambda: node.info() if node.info()["damages"] else None, "the damage to be shown")
            damage = info["damages"][0]
            self.assertEqual(damage["file"], os.path.basename(path))
            self.assertLessEqual(damage["offset"], 500000)
            self.assertGreater(damage["offset"] + damage["bytes"], 500000)
            self.assertGreater(damage["next_lsn"], damage["first_lsn"])
            self.assertEqual((damage["state"], damage["accepted_ms"]), ("open", None))
            self.assertGreater(damage["found_ms"], 0)
            kept = content(os.path.join(node.data, "quarantine", damage["copy"]))
            self.assertEqual(kept, content(path)[damage["offset"]:damage["offset"] + damage["bytes"]])
            text = node.ctl("log", "info").stdout.decode()
            self.assertIn("1 open, 0 accepted", text)
            self.assertIn("log accept-loss", text)
            self.assertRegex(text, rf"(?m)^{damage['file']} +{damage['offset']} +{damage['bytes']} "
                             rf" +{damage['first_lsn']} to {damage['next_lsn'] - 1} +open +{damage['copy']}$")
            line = json.loads(node.log_lines("the scrubber has found damage")[0])
            self.assertEqual((line["file"], line["offset"], line["first_lsn"]),
                             (path, damage["offset"], damage["first_lsn"]))
            wait_for(lambda: node.info()["scrub"]["last_full_pass_ms"], "a full pass")
            node.fill(100)  # appends go on

    def test_an_index_that_is_damaged_is_made_again(self):
        with Kept(", scrub_interval: 1s, scrub_rate: 1GiB") as node:
            node.start().fill()
            path = os.path.join(node.log_dir(), node.segments()[1].replace(".seg", ".idx"))
            node.restart_with_indexes()
            good = content(path)
            with open(path, "r+b") as file:
                file.seek(70)
                file.write(bytes([good[70] ^ 1]))
            wait_for(lambda: node.log_lines("the index of a segment is damaged"), "the scrubber")
            wait_for(lambda: content(path) == good, "the index to be made again")
            self.assertEqual(node.info()["damages"], [])

    def test_damage_that_the_making_of_an_index_meets_is_registered(self):
        with Kept() as node:
            node.start().fill()
            self.assertEqual(node.stop(), 0)
            path = os.path.join(node.log_dir(), node.segments()[1])
            if os.path.exists(path.replace(".seg", ".idx")):
                os.unlink(path.replace(".seg", ".idx"))
            with open(path, "r+b") as file:
                file.seek(500000)
                byte = file.read(1)
                file.seek(500000)
                file.write(bytes([byte[0] ^ 1]))
            node.start()
            damage = wait_for(lambda: node.info()["damages"], "the damage to be shown")[0]
            self.assertEqual(damage["file"], os.path.basename(path))
            self.assertLessEqual(damage["offset"], 500000)
            self.assertGreater(damage["offset"] + damage["bytes"], 500000)
            node.wait_logged("no index is made of it")
            self.assertFalse(os.path.exists(path.replace(".seg", ".idx")))

    def test_the_janitor_sleeps(self):
        with Kept() as node:
            node.start().fill()
            task = os.path.join("/proc", str(node.pid("walsvc")), "task")

            def switches():
                for thread in os.listdir(task):
                    with open(os.path.join(task, thread, "comm"), encoding="ascii") as comm:
                        if comm.read().strip() != "janitor":
                            continue
                    with open(os.path.join(task, thread, "status"), encoding="ascii") as status:
                        return [line for line in status if "ctxt_switches" in line]
                raise AssertionError("there is no janitor")
            node.settled()
            before = None

            def is_settled():
                nonlocal before
                last, before = before, switches()
                return last == before
            segments = None
            while segments != node.segments():  # a roll is a reason to wake up
                segments = node.segments()
                wait_for(is_settled, "the janitor to sleep", pause=0.3)
                for _ in range(20):
                    node.ctl("append", "x")
                after = switches()
            self.assertEqual(after, before)


if __name__ == "__main__":
    unittest.main()
