"""SIGKILL at each step of a roll, a seal and a mark, by failpoints: every line of an append that
runs through it lands exactly once."""
import json
import os
import subprocess
import unittest

from first_life import FirstLife, Lines, wait_restarted
from shanghai import BIN

SETTINGS = "wal:\n  segment_size: 4MiB"
LINES = 16000  # 16 MB: three rolls at least
# name: arrivals at which it strikes. A roll's first is the making of the first segment, a mark's the first start.
POINTS = {
    "roll_written": (1, 2, 3), "roll_synced": (1, 2, 3), "roll_named": (1, 2, 3), "roll_dir_synced": (1, 2, 3),
    "seal_truncated": (1, 2), "seal_synced": (1, 2),
    "mark_written": (1, 2, 3), "mark_synced": (1, 2, 3),
}
IS_LONG = os.environ.get("SHANGHAI_LONG") == "1"


def has_failpoints():
    out = subprocess.run([os.path.join(BIN, "shanghaictl"), "--format", "json", "version"], capture_output=True, check=True)
    return json.loads(out.stdout).get("failpoints", False)


class Steps(unittest.TestCase):
    def setUp(self):
        if not has_failpoints():
            self.skipTest("a build without failpoints")

    def strike(self, point, at):
        with FirstLife(SETTINGS, ["env", f"SHANGHAI_FAILPOINT={point}=kill@{at}"]) as node:
            ended = node.start_through_fault()
            lines = Lines(node, LINES)
            lines.finish()
            if not ended:
                wait_restarted(node)  # an idle mark comes after the last line
                lines.check()
            self.assertEqual(node.restarts(), 0 if ended else 1, node.log_tail())

    def test_a_kill_at_each_step_loses_and_doubles_nothing(self):
        strikes = [(point, at) for point, arrivals in POINTS.items() for at in (arrivals if IS_LONG else arrivals[:2])]
        for point, at in strikes:
            with self.subTest(point=point, at=at):
                self.strike(point, at)
        print(f"\ncount: kills at a step {len(strikes)}", flush=True)


if __name__ == "__main__":
    unittest.main()
