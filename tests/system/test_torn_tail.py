"""Torn tails and damage with a real walsvc. The unit tests tear at every byte; here are the processes around it.

A failpoint makes walsvc write groups without syncing or acknowledging them."""
import json
import os
import shutil
import struct
import subprocess
import unittest

from shanghai import BIN, Node, wait_for

SUPERVISOR = "supervisor: {intensity: 1000, period: 60s, backoff: false}"
SEGMENT_HEADER, FRAME_HEADER = 64, 88


def frames_of(path):
    """[(offset, size, count)] of a segment, by its length fields."""
    with open(path, "rb") as file:
        data = file.read()
    frames, at = [], SEGMENT_HEADER
    while data[at:at + 4] == b"SHFR":
        body, = struct.unpack_from("<I", data, at + 8)
        count, = struct.unpack_from("<I", data, at + 24)
        frames.append((at, FRAME_HEADER + body, count))
        at += FRAME_HEADER + body
    return frames


def has_failpoints():
    out = subprocess.run([os.path.join(BIN, "shanghaictl"), "--format", "json", "version"], capture_output=True, check=True)
    return json.loads(out.stdout).get("failpoints", False)


class TornTail(unittest.TestCase):
    ACKNOWLEDGED = 5

    def segment(self, node):
        directory = node.log_dir()
        names = sorted(name for name in os.listdir(directory) if name.endswith(".seg"))
        return os.path.join(directory, names[-1])

    def make_unsynced(self, node):
        """Acknowledged frames, then three that were written, never synced and never acknowledged."""
        node.start()
        for i in range(self.ACKNOWLEDGED):
            node.ctl("append", f"kept {i}")
        node.stop()
        node.env["SHANGHAI_FAILPOINT"] = "wal_sync=skip@1"
        node.start()
        before = len(frames_of(self.segment(node)))
        callers = []
        for i in range(3):
            callers.append(subprocess.Popen(node.ctl_command("--timeout", "60s", "append", f"torn {i} " + "z" * 100),
                                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            wait_for(lambda want=before + i + 1: len(frames_of(self.segment(node))) >= want, "the frame to be written")
        node.kill_all()
        for caller in callers:
            caller.kill()
            caller.wait()
        del node.env["SHANGHAI_FAILPOINT"]

    def check_start(self, node, whole):
        """The node starts, keeps what was acknowledged and what is whole, and takes more."""
        node.start()
        expected = b"".join(b"kept %d\n" % i for i in range(self.ACKNOWLEDGED))
        expected += b"".join(b"torn %d %s\n" % (i, b"z" * 100) for i in range(whole))
        self.assertEqual(node.ctl("--format", "raw", "read", "--from", "1").stdout, expected)
        done = node.json("append", "more")
        self.assertEqual(done["first"]["lsn"], self.ACKNOWLEDGED + whole + 1)
        self.assertEqual(node.ctl("log", "verify", "--data", node.data).returncode, 0)

    def setUp(self):
        if not has_failpoints():
            self.skipTest("a build without failpoints")

    def test_cut_zeroed_and_noisy_tails_start(self):
        with Node(supervisor=SUPERVISOR) as node:
            self.make_unsynced(node)
            segment = self.segment(node)
            tail = frames_of(segment)[-3:]
            start, end = tail[0][0], tail[2][0] + tail[2][1]
            saved = os.path.join(node.dir, "saved")
            shutil.copytree(node.data, saved)
            points = sorted({start, start + 1, start + 87, start + 88, start + 150, tail[1][0], tail[1][0] + 40,
                             tail[2][0], tail[2][0] + 100, end - 1})
            for kind in ("cut", "zeros", "noise"):
                for point in points:
                    with self.subTest(kind=kind, point=point - start):
                        shutil.rmtree(node.data)
                        shutil.copytree(saved, node.data)
                        self.tear(segment, kind, point, end)
                        logged = len(node.log_lines("torn"))
                        whole = sum(1 for at, size, _ in tail if at + size <= point)
                        self.check_start(node, whole)
                        if kind == "noise" or point not in [at for at, _, _ in tail]:
                            self.assertTrue(os.listdir(os.path.join(node.data, "quarantine")), "nothing was kept aside")
                            wait_for(lambda seen=logged: len(node.log_lines("torn")) > seen, "the cut to be logged")
                        node.kill_all()

    @staticmethod
    def tear(segment, kind, point, end):
        with open(segment, "r+b") as file:
            if kind == "cut":
                file.truncate(point)
                return
            file.seek(point)
            file.write(bytes(end - point) if kind == "zeros" else os.urandom(end - point))


if __name__ == "__main__":
    unittest.main()
