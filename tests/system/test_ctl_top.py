"""shanghaictl top: as text, and on a terminal, which is put back as it was."""
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import unittest

from cluster import SUPERVISOR
from shanghai import Node, wait_for

ENTER, LEAVE = b"\033[?1049h", b"\033[?1049l"


class Terminal:
    """A pseudo terminal of some size, and what a program has shown on it since it was looked at last."""

    def __init__(self, command, rows, columns):
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.set_blocking(self.master, False)
        self.shown = b""

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self):
        try:
            self.shown += os.read(self.master, 1 << 16)
        except BlockingIOError:
            pass
        return self.shown

    def frames(self):
        """Whole views: each begins at the top left."""
        return self.read().split(b"\033[H")[1:-1]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


class Top(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node(SUPERVISOR).start()

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def open(self, *args, rows=30, columns=100):
        terminal = Terminal(self.node.ctl_command("top", *args), rows, columns)
        self.addCleanup(terminal.close)
        return terminal

    def wait_ended(self, terminal):
        """With what it has shown to the end."""
        wait_for(lambda: terminal.read() and terminal.process.poll() is not None, "top to end")
        terminal.read()
        self.assertIn(LEAVE, terminal.shown)
        self.assertEqual(termios.tcgetattr(terminal.slave), terminal.before)
        return terminal.process.returncode

    def test_a_text_is_printed_where_there_is_no_terminal(self):
        out = self.node.ctl("top", "--interval", "100ms").stdout.decode()
        self.assertNotIn("\033", out)
        self.assertIn("of cluster", out)
        self.assertIn("entries, commits", out)
        out = self.node.ctl("top", "--interval", "100ms", "--count", "3").stdout.decode()
        self.assertEqual(out.count("entries, commits"), 3)

    def test_it_goes_on_until_q(self):
        terminal = self.open("--interval", "100ms")
        wait_for(lambda: len(terminal.frames()) >= 3, "three views")
        self.assertTrue(terminal.shown.startswith(ENTER))
        os.write(terminal.master, b"xq")
        self.assertEqual(self.wait_ended(terminal), 0)

    def test_a_signal_ends_it_as_q_does(self):
        terminal = self.open("--interval", "1h")
        wait_for(lambda: b"of cluster" in terminal.read(), "a view")
        terminal.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.wait_ended(terminal), 0)

    def test_it_fits_the_screen_whatever_size_that_is(self):
        terminal = self.open("--interval", "1h")
        wait_for(lambda: b"of cluster" in terminal.read(), "a view")
        terminal.shown = b""
        terminal.resize(5, 20)
        terminal.process.send_signal(signal.SIGWINCH)  # it has a session of its own, and the terminal is not its own
        wait_for(lambda: terminal.read().endswith(b"\033[J"), "a view for the new size")
        lines = terminal.shown.split(b"\033[H")[-1].replace(b"\033[J", b"").split(b"\r\n")
        self.assertEqual(len(lines), 5)
        for line in lines:
            for sequence in (b"\033[K", b"\033[0m", b"\033[1m", b"\033[31m", b"\033[32m", b"\033[33m"):
                line = line.replace(sequence, b"")
            self.assertLessEqual(len(line.decode()), 20, line)

    def test_a_node_that_is_gone_is_said_and_it_goes_on(self):
        node = Node(SUPERVISOR)
        self.addCleanup(node.close)
        node.start()
        terminal = Terminal(node.ctl_command("top", "--interval", "100ms"), 30, 100)
        self.addCleanup(terminal.close)
        wait_for(lambda: b"entries, commits" in terminal.read(), "a view")
        node.stop()
        wait_for(lambda: b"nothing new for" in terminal.read(), "it to say so")
        os.write(terminal.master, b"q")
        self.assertEqual(self.wait_ended(terminal), 0)

    def test_without_a_node_it_fails(self):
        command = [self.node.ctl_command()[0], "--endpoint", "ipc:///nonexistent/query", "--timeout", "300ms", "top"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
        self.assertEqual(done.returncode, 3, done)
        self.assertIn(b"unavailable", done.stderr)
        self.assertEqual(self.node.ctl("--format", "json", "top", check=False).returncode, 2)


if __name__ == "__main__":
    unittest.main()
