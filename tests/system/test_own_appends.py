"""A client finds what it was acknowledged, whatever is killed meanwhile."""
import contextlib
import os
import signal
import subprocess
import unittest

from shanghai import BIN, Node


class OwnAppends(unittest.TestCase):
    def setUp(self):
        self.node = Node().start()
        self.client = subprocess.Popen([os.path.join(BIN, "client_sees"), self.node.endpoint], text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tearDown(self):
        self.client.stdin.close()
        self.client.wait(timeout=30)
        self.client.stdout.close()
        self.node.close()

    def tell(self, line):
        print(line, file=self.client.stdin, flush=True)
        return self.client.stdout.readline().strip()

    def test_status_and_the_end_of_the_log_know_of_them(self):
        self.assertEqual(self.tell("fresh 400"), "0")

    def test_a_reader_is_not_told_of_another_log_by_a_querysvc_that_has_just_started(self):
        for _ in range(3):
            walsvc, querysvc = self.node.pid("walsvc"), self.node.pid("querysvc")
            self.assertEqual(self.tell("stand").split()[0], "not_found")
            os.kill(walsvc, signal.SIGSTOP)  # before it writes the durable mark
            try:
                os.kill(querysvc, signal.SIGKILL)
                # ok: querysvc had not heard of the last entry yet when it said that the log ends there
                self.assertIn(self.tell("next"), ("ok", "not_found", "unavailable", "timeout"))
            finally:
                with contextlib.suppress(ProcessLookupError):  # the watchdog has lost patience
                    os.kill(walsvc, signal.SIGCONT)


if __name__ == "__main__":
    unittest.main()
