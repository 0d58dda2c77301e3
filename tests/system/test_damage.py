"""Damage in the middle of the log, met by a client: named with file and offset, and it costs nothing but itself."""
import os
import re
import subprocess
import unittest

from shanghai import BIN, Node

LINES = 100000


class Damage(unittest.TestCase):
    def test_a_reader_is_told_where_the_damage_is_and_where_to_go_on(self):
        with Node(settings="wal:\n  segment_size: 4MiB") as node:
            node.start()
            data = b"".join(b"%0100d\n" % i for i in range(1, LINES + 1))
            node.ctl("append", "--batch", "100", "-", input=data)
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
            behind = int(re.search(rb"LSN (\d+)", out.stderr).group(1))
            self.assertGreater(behind, read + 1)
            self.assertLess(behind, read + 10000)  # one frame is lost, no more
            rest = node.ctl("--format", "raw", "read", "--from", str(behind)).stdout
            self.assertEqual(rest, data[(behind - 1) * 101:])
            out = node.ctl("log", "verify", "--data", node.data, check=False)
            self.assertEqual(out.returncode, 1)
            self.assertIn(segments[1].encode(), out.stdout + out.stderr)

            with open(path, "r+b") as file:
                file.write(b"X")
            out = node.ctl("log", "info", check=False)
            self.assertNotEqual(out.returncode, 0)
            self.assertIn(segments[1].encode(), out.stderr)

    def test_querysvc_serves_no_other_nodes_directory(self):
        with Node() as node:
            node.start()
            self.assertEqual(node.stop(), 0)
            with open(node.config, encoding="ascii") as file:
                text = file.read()
            with open(node.config, "w", encoding="ascii") as file:
                file.write(text.replace("id: n1", "id: n2"))
            done = subprocess.run([os.path.join(BIN, "querysvc"), "--config", node.config, "--node", "n2"],
                                  capture_output=True, check=False, timeout=30)
            self.assertEqual(done.returncode, 78)
            self.assertIn(b"belongs to another node", done.stderr)


if __name__ == "__main__":
    unittest.main()
