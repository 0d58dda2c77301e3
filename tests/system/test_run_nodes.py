"""script/run with several nodes: detached, live on a terminal, events into a pipe, and a demonstration that is ended."""
import fcntl
import glob
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import unittest

from shanghai import BIN, process_exists, wait_for

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RUN = os.path.join(TOP, "script/run")
OPEN, CLOSE = b"\x1b[?1049h", b"\x1b[?1049l"  # of the terminal's other screen


def ctl(directory, node, *args):
    """The answer as a JSON document, None without one."""
    done = subprocess.run([os.path.join(BIN, "shanghaictl"), "--timeout", "2s", "--endpoint",
                           f"ipc://{directory}/{node}/run/query", "--format", "json", *args],
                          stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    return json.loads(done.stdout) if done.returncode == 0 else None


def processes_of(directory):
    """All that name a file there: each shanghaid and shanghaictl."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                if f"{directory}/".encode() in file.read():
                    found.append(int(path.split("/")[2]))
        except OSError:
            pass  # it has just ended
    return found


@unittest.skipUnless(os.path.realpath(BIN) == os.path.join(TOP, "build/bin"), "script/run runs what build/bin holds")
class Nodes(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="sh", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.dir, True)
        self.addCleanup(self.script, "--dir", self.dir, "--stop")
        self.ever = set()

    def script(self, *args):
        return subprocess.run([RUN, *args], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                              timeout=300)

    def note_processes(self):
        for node in ("n1", "n2", "n3"):
            rows = wait_for(lambda node=node: ctl(self.dir, node, "svc", "tree"), f"the tree of {node}")
            self.ever.update(row["pid"] for row in rows)
        self.assertEqual(len(self.ever), 18)  # shanghaid and five services, three times

    def assert_all_ended(self):
        self.assertEqual([pid for pid in self.ever if process_exists(pid)], [])
        self.assertEqual(processes_of(self.dir), [])

    def is_healthy(self, node):
        status = ctl(self.dir, node, "status") or {"nodes": None}
        return len(status["nodes"] or []) == 3 and status["health"] == "healthy"

    def test_three_run_detached_until_they_are_stopped(self):
        done = self.script("--nodes", "3", "--dir", self.dir, "--detach")
        self.assertEqual(done.returncode, 0, done.stderr)
        wait_for(lambda: all(map(self.is_healthy, ("n1", "n2", "n3"))), "a healthy cluster of three")
        self.note_processes()
        for args in ((), ("--once",), ("--detach",)):  # they must not end what runs already
            again = self.script("--nodes", "3", "--dir", self.dir, *args)
            self.assertEqual(again.returncode, 1)
            self.assertIn("n1 n2 n3 runs already under", again.stderr)
        self.assertEqual([pid for pid in self.ever if not process_exists(pid)], [])
        self.assertEqual(self.script("--dir", self.dir, "--stop").stdout, "stopped: n1 n2 n3\n")
        self.assert_all_ended()

    def on_terminal(self):
        """script/run with three nodes, its terminal."""
        pid, self.terminal = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm"
            os.environ.pop("NO_COLOR", None)
            os.execv(RUN, [RUN, "--nodes", "3", "--dir", self.dir])
        self.addCleanup(os.close, self.terminal)  # which hangs up, if it still runs
        self.seen = b""
        return pid

    def read_on(self, condition=lambda _: False):
        """Until the condition is met by what has been written since the last call, which it returns; or to its end."""
        text, self.seen = self.seen, b""
        while not condition(text):
            if not select.select([self.terminal], [], [], 60)[0]:
                raise AssertionError(f"nothing more on the terminal: {text}")
            try:
                text += os.read(self.terminal, 65536)
            except OSError:  # the other side is closed
                break
        return text

    def resize(self, rows, columns):
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def test_a_terminal_shows_how_they_are_and_is_left_clean(self):
        script = self.on_terminal()
        before = self.read_on(lambda text: OPEN in text)
        self.assertIn(b"Ctrl-C stops it", before.split(OPEN)[0])
        self.resize(40, 120)
        shown = self.read_on(lambda text: b"\x1b[32mhealthy" in text and text.count(b"\x1b[32mup") >= 3)
        self.assertNotIn(CLOSE, shown)
        self.note_processes()

        with open(f"{self.dir}/n3/shanghaid.pid", encoding="ascii") as file:
            os.kill(int(file.read()), signal.SIGKILL)
        shown = self.read_on(lambda text: b"node n3 ended; its log is" in text)
        self.assertNotIn(b"Killed", shown)  # nothing of the shell's own
        self.resize(4, 40)
        wait_small = re.compile(rb"\x1b\[H((?:[^\n]*\n){3})\x1b\[J")
        shown = self.read_on(wait_small.search)
        self.assertIn(b"health:", wait_small.search(shown)[1])

        os.write(self.terminal, b"\x03")
        end = self.read_on()
        code = os.waitstatus_to_exitcode(os.waitpid(script, 0)[1])
        self.assertEqual(code, 0)
        self.assertRegex(end, rb"\x1b\[\?7h\x1b\[\?25h\x1b\[\?1049l\r\nstopping\r\n$")
        self.assert_all_ended()

    def test_a_pipe_gets_events_until_the_script_is_ended(self):
        with subprocess.Popen([RUN, "--nodes", "3", "--dir", self.dir], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, text=True) as script:
            missing = {"n1": "founded", "n2": "up", "n3": "up"}
            for line in script.stdout:
                self.assertNotIn("\x1b", line)
                columns = line.split()
                if len(columns) > 4 and missing.get(columns[3]) == columns[4]:
                    del missing[columns[3]]
                if not missing:
                    break
            self.assertEqual(missing, {})
            self.note_processes()
            script.terminate()
            self.assertEqual(script.stdout.readlines()[-1], "stopping\n")
            self.assertEqual(script.wait(60), 0)
        self.assert_all_ended()

    def test_who_does_not_read_the_events_ends_it(self):
        with subprocess.Popen([RUN, "--nodes", "3", "--dir", self.dir], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as script:
            next(line for line in script.stdout if "  founded" in line)
            script.stdout.close()
            script.wait(60)
        self.assertEqual(processes_of(self.dir), [])

    def test_a_demonstration_that_is_ended_leaves_nothing(self):
        with subprocess.Popen([RUN, "--once"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                              env=dict(os.environ, TMPDIR=self.dir)) as script:
            killed = next(line for line in script.stdout if line.startswith("SIGKILL to n3"))
            script.terminate()
            self.assertNotIn("done\n", script.stdout.readlines())
            self.assertEqual(script.wait(60), 1)
        self.ever.update(map(int, re.findall(r"\d{2,}", killed)))
        self.assertEqual(os.listdir(self.dir), [])
        self.assert_all_ended()


if __name__ == "__main__":
    unittest.main()
