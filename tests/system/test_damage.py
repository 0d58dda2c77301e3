"""Damage in the middle of the log, met by a client: named with file and offset, and it costs nothing but itself."""
import json
import os
import random
import re
import subprocess
import unittest

from caller import Caller
from shanghai import BIN, Node

APPEND, APPEND_REPLY = 16, 17
LINES, FRAME_LINES = 100000, 500
PLACES = 50 if os.environ.get("SHANGHAI_LONG") else 4


def segments_of(node):
    directory = node.log_dir()
    return [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name.endswith(".seg")]


def used_bytes(path):
    with open(path, "rb") as file:
        return len(file.read().rstrip(b"\0"))


def fill(test, node):
    """LINES lines in frames of FRAME_LINES, by hand: what `append` gathers in one frame depends on the moment."""
    wal = Caller(test, f"{node.run}/wal.in", f"{node.run}/wal.out")
    for first in range(1, LINES + 1, FRAME_LINES):
        entries = [[0, "", b"%0100d" % i] for i in range(first, first + FRAME_LINES)]
        kind, body = wal.ask(APPEND, {1: bytes(16), 2: 0, 3: 0, 4: 0, 5: 0, 6: entries})
        test.assertEqual((kind, body[2]), (APPEND_REPLY, first))


def read_past_damage(node):
    """All lines that can be read, with their LSNs, and the LSNs that cannot."""
    lines, lost, start = {}, [], 1
    while True:
        out = node.ctl("--format", "raw", "read", "--from", str(start), check=False)
        for i, line in enumerate(out.stdout.split(b"\n")[:-1]):
            lines[start + i] = line
        if out.returncode == 0:
            return lines, lost
        found = re.search(rb"nothing can be read from LSN (\d+) to (\d+); go on with `shanghaictl read --from (\d+)`",
                          out.stderr)
        assert found, out.stderr
        first, last, start = (int(number) for number in found.groups())
        assert start == last + 1
        lost.extend(range(first, start))


class Damage(unittest.TestCase):
    def test_a_reader_is_told_where_the_damage_is_and_where_to_go_on(self):
        with Node(settings="wal:\n  segment_size: 4MiB") as node:
            node.start()
            fill(self, node)
            data = b"".join(b"%0100d\n" % i for i in range(1, LINES + 1))
            segments = sorted(name for name in os.listdir(node.log_dir()) if name.endswith(".seg"))
            self.assertGreaterEqual(len(segments), 3)
            path, offset = os.path.join(node.log_dir(), segments[1]), 1 << 20
            with open(path, "r+b") as file:
                file.seek(offset)
                byte = file.read(1)
                file.seek(offset)
                file.write(bytes([byte[0] ^ 1]))

            out = node.ctl("--format", "raw", "read", check=False)
            read = out.stdout.count(b"\n")
            self.assertEqual(out.stdout, data[:read * 101])
            self.assertEqual(out.returncode, 1)
            self.assertIn(b"corrupt", out.stderr)
            self.assertIn(segments[1].encode(), out.stderr)
            behind = int(re.search(rb"go on with `shanghaictl read --from (\d+)`", out.stderr).group(1))
            self.assertIn(b"nothing can be read from LSN %d to %d;" % (read + 1, behind - 1), out.stderr)
            self.assertEqual(behind, read + 1 + FRAME_LINES)  # one frame is lost, no more
            rest = node.ctl("--format", "raw", "read", "--from", str(behind)).stdout
            self.assertEqual(rest, data[(behind - 1) * 101:])
            out = node.ctl("log", "verify", "--data", node.data, check=False)
            self.assertEqual(out.returncode, 1)
            self.assertIn(segments[1].encode(), out.stdout + out.stderr)

            with open(path, "r+b") as file:
                file.write(b"X")  # a header holds no entry
            self.assertEqual(len(node.json("log", "info")["segments"]), len(segments))
            out = node.ctl("--format", "raw", "read", "--from", str(behind)).stdout
            self.assertEqual(out, data[(behind - 1) * 101:])

    def test_what_the_node_knows_is_told_beside_a_segment_that_is_all_zeros(self):
        with Node(settings="wal:\n  segment_size: 1MiB") as node:
            node.start()
            node.ctl("append", "--batch", "100", "-", input=b"".join(b"%0100d\n" % i for i in range(1, 30001)))
            before = node.json("log", "info")["segments"]
            self.assertGreaterEqual(len(before), 3)
            path = segments_of(node)[1]
            with open(path, "r+b") as file:
                file.write(bytes(os.path.getsize(path)))
            after = node.json("log", "info")["segments"]
            self.assertEqual([(s["base_lsn"], s["position"]) for s in after],
                             [(s["base_lsn"], s["position"]) for s in before])

    def damage_and_start(self, node, path, offset, size):
        """The node starts on the damage, everything else reads back, appends go on, nothing is deleted or cut."""
        before = {name: used_bytes(name) for name in segments_of(node)}
        with open(path, "r+b") as file:
            file.seek(offset)
            old = file.read(size)
            file.seek(offset)
            file.write(bytes([old[0] ^ 1]) if size == 1 else bytes(size))
        verify = node.ctl("log", "verify", "--data", node.data, check=False)
        self.assertEqual(verify.returncode, 1)
        self.assertEqual(verify.stdout.count(b"damage "), 1, verify.stdout)
        self.assertIn(os.path.basename(path).encode(), verify.stdout)
        damage = json.loads(node.ctl("--format", "json", "log", "verify", "--data", node.data, check=False).stdout)
        damage = damage["damages"][0]
        node.start()
        lines, lost = read_past_damage(node)
        entries = len(lines) + len(lost)
        self.assertEqual(sorted([*lines, *lost]), list(range(1, entries + 1)))
        for lsn, line in lines.items():
            self.assertEqual(line, b"%0100d" % lsn)
        if damage["next_lsn"] > 0:
            self.assertEqual(lost, list(range(damage["first_lsn"], damage["next_lsn"])))
        else:  # no good frame behind it in its segment
            self.assertEqual(lost[:1], [damage["first_lsn"]])
        self.assertLessEqual(len(lost), 2 * FRAME_LINES)  # the bytes may lie over the end of a frame
        self.assertEqual(node.json("append", "%0100d" % (entries + 1))["first"]["lsn"], entries + 1)
        node.stop()
        again = node.ctl("log", "verify", "--data", node.data, check=False)
        self.assertEqual(again.returncode, 1)
        self.assertEqual(again.stdout.split(b"\n")[0], verify.stdout.split(b"\n")[0])
        for name, used in before.items():
            self.assertGreaterEqual(os.path.getsize(name), used)
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(old)
        return entries + 1

    def make_log(self, node):
        node.start()
        fill(self, node)
        node.stop()
        return segments_of(node)

    def test_walsvc_starts_on_damage_at_random_places(self):
        seed = int(os.environ.get("SHANGHAI_SEED", random.randrange(1 << 32)))
        chance = random.Random(seed)
        print(f"SHANGHAI_SEED={seed}")
        with Node(settings="wal:\n  segment_size: 4MiB") as node:
            segments = self.make_log(node)
            self.assertGreaterEqual(len(segments), 3)
            for i in range(PLACES):
                path = chance.choice(segments)
                size = 1 if i % 2 == 0 else 4096
                offset = chance.randrange(max(1, used_bytes(path) - size - 200))
                with self.subTest(seed=seed, file=path, offset=offset, size=size):
                    self.damage_and_start(node, path, offset, size)
        print(f"figure: damage: {PLACES} places under the real programs")

    def test_walsvc_goes_on_behind_a_last_entry_that_is_damaged(self):
        with Node() as node:
            node.start()
            for i in range(1, 6):
                node.ctl("append", "%0100d" % i)
            node.stop()
            path = segments_of(node)[-1]
            entries = self.damage_and_start(node, path, used_bytes(path) - 1, 1)
            self.assertEqual(entries, 6)
            self.assertEqual(len(segments_of(node)), 2)
            told = [line for line in node.log_lines("damage in the log") if os.path.basename(path) in line]
            self.assertEqual(len(told), 1)
            self.assertTrue(os.listdir(os.path.join(node.data, "quarantine")))

    def test_querysvc_serves_no_other_nodes_directory(self):
        with Node() as node:
            node.start()
            self.assertEqual(node.stop(), 0)
            with open(node.config, encoding="ascii") as file:
                text = file.read()
            with open(node.config, "w", encoding="ascii") as file:
                file.write(text.replace('"n1"', '"n2"').replace("%n", "n1"))
            done = subprocess.run([os.path.join(BIN, "querysvc"), "--config", node.config, "--node", "n2"],
                                  capture_output=True, check=False, timeout=30)
            self.assertEqual(done.returncode, 78)
            self.assertIn(b"belongs to another node", done.stderr)


if __name__ == "__main__":
    unittest.main()
