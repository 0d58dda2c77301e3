"""shanghaictl and script/run as a user meets them who mistypes, points at the wrong place, or has no permission."""
import contextlib
import json
import os
import pty
import re
import select
import shutil
import socket
import subprocess
import tempfile
import unittest

from logs import crc32c
from shanghai import BIN, SERVICES, Node, process_exists, wait_for

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CTL = os.path.join(BIN, "shanghaictl")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
# Each command as it is called when all is well.
COMMANDS = (
    ("append", "x"), ("read",), ("tail",), ("status",), ("nodes",), ("events",), ("svc", "tree"), ("svc", "restart", "walsvc"),
    ("svc", "stop", "walsvc"), ("svc", "start", "walsvc"), ("svc", "obituary"), ("log", "info"), ("log", "verify"),
    ("log", "dump"), ("bench", "append"), ("bench", "read"), ("config", "check"), ("config", "show"), ("shutdown",),
    ("version",))
ASK_THE_NODE = (("append", "x"), ("read",), ("tail",), ("status",), ("nodes",), ("events",), ("log", "info"),
                ("bench", "append"), ("bench", "read"), ("kv", "get", "k"), ("kv", "scan"), ("kv", "put", "k", "v"),
                ("view", "info"), ("view", "digest"))
MAY_HAVE_WRITTEN = (("append", "x"), ("kv", "put", "k", "v"))


def run(*args, **options):
    """shanghaictl alone: no endpoint, nothing of the environment. Text in and out."""
    options.setdefault("stdin", subprocess.DEVNULL)
    env = {name: value for name, value in os.environ.items() if not name.startswith("SHANGHAI_")}
    return subprocess.run([CTL, *args], capture_output=True, text=True, errors="replace", check=False, timeout=60, env=env,
                          **options)


def is_runnable_by_nobody():
    return os.geteuid() == 0 and shutil.which("setpriv") and subprocess.run(
        [*NOBODY, CTL, "version"], capture_output=True, check=False).returncode == 0


class Usage(unittest.TestCase):
    """What needs no node."""

    def refused(self, text, *args):
        done = run(*args)
        self.assertEqual(done.returncode, 2, (args, done.stderr))
        self.assertIn(text, done.stderr, args)
        self.assertEqual(done.stdout, "", args)

    def test_each_command_has_help_and_says_so(self):
        for command in COMMANDS:
            words = command[:2] if command[0] in ("svc", "log", "bench", "config") else command[:1]
            done = run(*words, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""), command)
            self.assertTrue(done.stdout.startswith(f"Usage: shanghaictl {' '.join(words)} "), done.stdout)
            self.assertLessEqual(max(map(len, done.stdout.splitlines())), 100, done.stdout)
            letters = [line[2:4] for line in done.stdout.splitlines() if line.startswith("  -")]
            self.assertEqual(len(letters), len(set(letters)), done.stdout)
            self.refused("no such option: --no-such-thing", *words, "--no-such-thing")
            self.refused("Try: shanghaictl " + " ".join(words) + " --help", *words, "--no-such-thing")
            self.refused("--format must be", *words, *command[len(words):], "--format", "xml")
        for group in ("svc", "log", "bench", "config"):
            self.assertIn(f"Usage: shanghaictl {group} COMMAND", run(group, "--help").stdout)
            self.refused(f"Usage: shanghaictl {group} COMMAND", group)
        for words in (("help",), ("--help",), ("-h",)):
            self.assertEqual(run(*words).returncode, 0)
            self.assertIn("svc obituary", run(*words).stdout)

    def test_what_is_misspelt_is_named_with_what_may_be_meant(self):
        self.refused("no such command: sttaus; did you mean `status`?", "sttaus")
        self.refused("no such command: svc treee; did you mean `svc tree`?", "svc", "treee")
        self.refused("no such command: bench queue", "bench", "queue")
        self.refused("no such option: --strem; did you mean --stream?", "append", "--strem", "s", "x")

    def test_numbers_and_durations_have_ranges(self):
        for number in ("-1", "x", "", "1.5", "1e3", "0x10", "18446744073709551615", "18446744073709551616", "9" * 40):
            self.refused("--from must be", "read", "--from", number)
        for number in ("-1", "x", "18446744073709551616", "1KiB"):
            self.refused("--count must be", "read", "--count", number)
        for number in ("0", "65537", "-1"):
            self.refused("--batch must be", "append", "--batch", number, "x")
        for time in ("0", "1ns", "-1s", "2d", "99999999999999999999s"):
            self.refused("--timeout must be", "status", "--timeout", time)
        self.refused("--timeout needs a unit", "status", "--timeout", "5")
        for size in ("0", "9MiB", "99999999999999999999GiB"):
            self.refused("--size must be between 1 and 8MiB", "bench", "append", "--size", size)
        self.refused("--limit must be between 1 and 1000", "svc", "obituary", "--limit", "0")

    def test_values_that_are_missing_or_too_many(self):
        self.refused("append: missing: VALUE", "append")
        self.refused("svc restart: missing: NAME", "svc", "restart")
        self.refused("--stream needs a value", "append", "--stream")
        self.refused("status: unexpected: x", "status", "x")
        self.refused("--help takes no value", "status", "--help=1")
        self.refused("which node?", "status")
        self.refused("which data directory?", "log", "verify")
        self.refused("which file?", "config", "check")

    def test_a_dash_stands_alone(self):
        for values in (("-", "x"), ("x", "-"), ("-", "-"), ("--", "x", "-")):
            self.refused("- stands alone", "append", *values)

    def test_streams_have_names_of_at_most_255_bytes_of_utf8(self):
        for command in (("append", "x"), ("read",), ("tail",)):
            for name in ("s" * 256, b"\xff"):
                self.refused("at most 255 bytes of UTF-8", *command, "--stream", name)

    def test_bad_endpoints_are_refused(self):
        for endpoint in ("x", "http://x", "tcp://x", "tcp://x:0", "tcp://x:99999", "ipc://", "ipc://x", "ipc:///" + "x" * 108):
            done = run("status", "--endpoint", endpoint)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("ipc:///path", done.stderr)
        self.refused("at most 8 endpoints", "status", "--endpoint", ",".join(["ipc:///x"] * 9))

    def test_a_node_that_is_not_there_is_named_once_with_what_to_do(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
            for command in ASK_THE_NODE:
                done = run(*command, "--endpoint", f"ipc:///tmp/no,body/query,tcp://127.0.0.1:{port}", "--timeout", "100ms")
                self.assertEqual(done.returncode, 3, done.stderr)
                self.assertEqual(done.stdout, "")
                self.assertIn("ipc:///tmp/no,body/query: there is no such socket; is the node running?", done.stderr)
                self.assertIn(f"tcp://127.0.0.1:{port}", done.stderr)
                for text in ("no answer in time", "cannot be reached", "outcome is unknown"):
                    self.assertLessEqual(done.stderr.count(text), 1)
                if command[:2] != ("bench", "append"):
                    self.assertEqual("outcome is unknown" in done.stderr, command in MAY_HAVE_WRITTEN, done.stderr)
        for command in (("svc", "tree"), ("shutdown",)):
            done = run(*command, "--endpoint", "ipc:///tmp/nobody/query")
            self.assertEqual(done.returncode, 3)
            self.assertIn("/tmp/nobody/supervisor.sock: unavailable: there is no such socket", done.stderr)
            self.refused("give an ipc endpoint or --config", *command, "--endpoint", f"tcp://127.0.0.1:{port}")

    def test_a_person_is_told_what_is_waited_for(self):
        ours, theirs = pty.openpty()
        done = subprocess.run([CTL, "status", "--endpoint", "ipc:///tmp/nobody/query", "--timeout", "100ms"], stderr=theirs,
                              stdin=subprocess.DEVNULL, check=False)
        os.close(theirs)
        self.assertEqual(done.returncode, 3)
        self.assertIn(b"waiting up to 100 ms: ipc:///tmp/nobody/query: there is no such socket", os.read(ours, 4096))
        os.close(ours)

    def test_failures_are_json_when_asked_for(self):
        done = run("status", "--endpoint", "ipc:///tmp/nobody/query", "--timeout", "50ms", "--format", "json")
        self.assertEqual((done.returncode, json.loads(done.stderr)["error"]), (3, "unavailable"))

    def test_a_topology_that_cannot_be_read_is_no_answer(self):
        for file in ("/nope", "/tmp"):
            for command in ("check", "show"):
                self.assertEqual(run("config", command, file).returncode, 3)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write("cluster: 5\n")
            file.flush()
            done = run("config", "check", file.name, "--format", "json")
            self.assertEqual(done.returncode, 1)
            self.assertFalse(json.loads(done.stdout)["valid"])


class WithNode(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node("wal: {segment_size: 4MiB}").start()

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def ctl(self, *args, **options):
        return self.node.ctl(*args, check=False, **options)

    @contextlib.contextmanager
    def started(self, *args, endpoint=None, stdin=subprocess.DEVNULL, **options):
        """A shanghaictl that runs beside the test, and not beyond it."""
        command = self.node.ctl_command(*args, endpoint=endpoint)
        with subprocess.Popen(command, stdin=stdin, **options) as process:
            try:
                yield process
            finally:
                process.kill()

    def test_each_command_answers_in_each_format(self):
        self.node.ctl("append", "x")
        for command in ASK_THE_NODE[:5] + (("svc", "tree"), ("svc", "obituary"), ("version",),
                                           ("log", "info", "--data", self.node.data),
                                           ("log", "verify", "--data", self.node.data),
                                           ("log", "dump", "--data", self.node.data),
                                           ("config", "check", self.node.config), ("config", "show", self.node.config),
                                           ("bench", "append", "--duration", "50ms", "--disk-dir", self.node.dir),
                                           ("bench", "read", "--duration", "50ms")):
            text = self.node.ctl(*command).stdout.decode()
            self.assertTrue(text.endswith("\n"), command)
            if command not in (("read",), ("tail",)):  # an empty payload ends in blanks
                self.assertNotIn(" \n", text, command)
            for line in self.node.ctl("--format", "json", *command).stdout.splitlines():
                json.loads(line)
            raw = self.ctl("--format", "raw", *command).returncode
            self.assertEqual(raw, 0 if command in (("read",), ("tail",)) else 2, command)

    def test_input_that_cannot_be_read_is_named(self):
        directory = os.open("/", os.O_RDONLY)
        try:
            done = self.ctl("append", "-", stdin=directory)
        finally:
            os.close(directory)
        self.assertEqual(done.returncode, 3)
        self.assertIn(b"bad_request: standard input is a directory", done.stderr)
        command = " ".join(self.node.ctl_command("append", "-"))
        done = subprocess.run(["sh", "-c", f"exec {command} <&-"], capture_output=True, check=False)
        self.assertEqual(done.returncode, 3)
        self.assertIn(b"bad_request: standard input is closed", done.stderr)

    def test_a_line_that_is_too_large_is_named_with_the_limit(self):
        limit = 1 << 20  # a quarter segment, less what the frame needs itself
        cases = ((b"x" * limit, f"line 3 has {limit:,} bytes".encode()),
                 (b"x" * (17 << 20), b"line 3 has more than 16,"))
        for line, text in cases:
            before = self.node.json("status")["durable_lsn"]
            done = self.ctl("append", "-", input=b"a\n\n" + line + b"\nnever\n")
            self.assertEqual(done.returncode, 3)
            self.assertIn(text, done.stderr)
            self.assertRegex(done.stderr, rb"the node takes at most 1,048,\d\d\d in one append")
            self.assertRegex(done.stderr, rb"2 of [23] entries sent were acknowledged")
            self.assertEqual(self.node.json("status")["durable_lsn"], before + 2)

    def test_no_batch_is_too_large_when_its_lines_are_not(self):
        for size in (10, 1000, 300000):
            data = (b"x" * size + b"\n") * ((3 << 20) // size)
            done = self.ctl("append", "--batch", "65536", "--stream", "s" * 255, "-", input=data)
            self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_a_batch_that_fails_ends_the_append_though_no_more_input_comes(self):
        with self.started("append", "--timeout", "100ms", "-", endpoint="ipc:///tmp/nobody/query", stdin=subprocess.PIPE,
                          stderr=subprocess.PIPE) as append:
            append.stdin.write(b"x\n")
            append.stdin.flush()
            self.assertEqual(append.wait(60), 3)
            self.assertIn(b"timeout: no answer in time", append.stderr.read())

    def test_nobody_reading_ends_it_quietly(self):
        self.node.ctl("append", "--batch", "1000", "-", input=b"line\n" * 300000)
        for command in (("read",), ("tail", "-n", "300000"), ("tail", "-f"), ("log", "dump", "--data", self.node.data)):
            with self.started(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
                self.assertTrue(reader.stdout.readline())
                reader.stdout.close()
                self.assertIn(reader.wait(60), (0, 3) if command[0] == "log" else (3,))  # a short dump is over by then
                self.assertEqual(reader.stderr.read(), b"")

    def test_output_that_cannot_be_written_is_told(self):
        with open("/dev/full", "wb") as full:
            for command in (("status",), ("read",), ("log", "info")):
                done = subprocess.run(self.node.ctl_command(*command), stdin=subprocess.DEVNULL, stdout=full,
                                      stderr=subprocess.PIPE, check=False)
                self.assertEqual(done.returncode, 3)
                self.assertIn(b"cannot write to standard output: No space left on device", done.stderr)
        command = " ".join(self.node.ctl_command("status"))
        done = subprocess.run(["sh", "-c", f"exec {command} >&-"], stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, 3)

    def test_progress_is_shown_on_a_terminal_only(self):
        self.assertEqual(self.ctl("append", "-", input=b"x\n" * 1000).stderr, b"")
        ours, theirs = pty.openpty()
        seen = b""

        def sees_progress():
            nonlocal seen
            append.stdin.write(b"x\n")
            append.stdin.flush()
            seen += os.read(ours, 4096)
            return b"entries durable" in seen
        with self.started("append", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs) as append:
            os.close(theirs)
            wait_for(sees_progress, "progress on the terminal")
            append.stdin.close()
            self.assertEqual(append.wait(60), 0)
            self.assertIn(b"durable (local)", append.stdout.read())
        os.close(ours)

    def test_the_last_of_an_option_given_twice_counts(self):
        done = self.node.json("append", "--stream", "a", "--stream", "b", "x")
        row = self.node.json("read", "--from", "1", "--from", str(done["first"]["lsn"]), "--count", "1")
        self.assertEqual(row["stream"], "b")

    def test_what_the_supervisor_does_not_know_is_exit_1(self):
        for command in (("svc", "restart", "nope"), ("svc", "stop", "nope"), ("svc", "obituary", "nope")):
            self.assertEqual(self.ctl(*command).returncode, 1)
        self.assertEqual(self.ctl("svc", "stop", "root").returncode, 3)
        self.assertEqual(self.node.ctl("svc", "start", "walsvc").stdout, b"walsvc: runs already\n")

    def test_log_info_of_the_directory_agrees_with_the_node(self):
        of_node, of_data = self.node.json("log", "info"), self.node.json("log", "info", "--data", self.node.data)
        for name in ("log", "first_lsn"):
            self.assertEqual(of_node[name], of_data[name])
        self.assertLessEqual(of_data["durable_lsn"], self.node.json("status")["durable_lsn"])
        self.assertGreaterEqual(len(of_data["segments"]), len(of_node["segments"]))

    def test_the_configuration_is_shown_as_json(self):
        shown = self.node.json("config", "show", self.node.config, "--node", "n1", endpoint=self.node.endpoint)
        self.assertEqual(shown["cluster"]["nodes"][0]["port"], self.node.port)
        self.assertEqual((shown["data_dir"], shown["wal"]["segment_size"]), (self.node.data, "4MiB"))
        self.assertEqual([child["service"] for child in shown["supervisor"]["children"]], ["walsvc", "membersvc", "replsvc", "querysvc", "obssvc"])

    def test_a_node_that_is_named_is_the_one_that_is_asked(self):
        env = dict(os.environ, SHANGHAI_ENDPOINT="ipc:///tmp/nobody/query", SHANGHAI_CONFIG=self.node.config)
        for args, code in ((("--node", "n1"), 0), (("--node", "n2"), 2), (("--config", self.node.config), 0),
                           (("--node", "n1", "--endpoint", self.node.endpoint), 2), (("--timeout", "50ms"), 3)):
            done = subprocess.run([CTL, "status", *args], env=env, capture_output=True, check=False)
            self.assertEqual(done.returncode, code, (args, done.stderr))

    def test_the_data_directory_comes_from_the_configuration(self):
        done = run("log", "verify", "--config", self.node.config)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("good", done.stdout)

    @unittest.skipUnless(is_runnable_by_nobody(), "needs root, and a binary that everybody may run")
    def test_no_permission_is_said(self):
        def as_nobody(*args):
            return subprocess.run([*NOBODY, *self.node.ctl_command("--timeout", "200ms", *args)], capture_output=True,
                                  stdin=subprocess.DEVNULL, check=False)
        for command in ASK_THE_NODE[:5] + (("svc", "tree"),):
            done = as_nobody(*command)
            self.assertEqual(done.returncode, 3)
            self.assertIn(b"permission denied; run this as the node's user, or as root", done.stderr)
        for command in ("info", "verify", "dump"):
            done = as_nobody("log", command, "--data", self.node.data)
            self.assertEqual((done.returncode, done.stdout), (3, b""))
            self.assertIn(b"Permission denied", done.stderr)
            self.assertEqual(done.stderr.count(b"\n"), 1)


class Changes(unittest.TestCase):
    def test_commands_that_change_something_say_in_json_what_was_done(self):
        with Node() as node:
            node.start()
            for command in (("svc", "restart", "walsvc"), ("svc", "stop", "querysvc"), ("svc", "start", "querysvc"),
                            ("shutdown",)):
                answer = node.json(*command)
                self.assertEqual(set(answer), {"done", "text"}, command)
                self.assertIs(answer["done"], True, command)
                if len(command) == 3:
                    self.assertIn(command[2], answer["text"])
            self.assertEqual(node.process.wait(60), 0)
            node.process = None


class Offline(unittest.TestCase):
    """log verify, dump and info on what is no sound data directory. 1 means damage, and nothing else does."""

    def setUp(self):
        self.node = Node()
        self.addCleanup(self.node.close)
        self.node.start()
        self.node.ctl("append", "-", input=b"line\n" * 1000)
        self.assertEqual(self.node.stop(), 0)
        names = [name for name in os.listdir(self.node.log_dir()) if name.endswith(".seg")]
        self.segment = os.path.join(self.node.log_dir(), sorted(names)[-1])

    def check(self, data, code, text, commands=("verify", "dump")):
        for command in commands:
            done = run("log", command, "--data", data)
            self.assertEqual(done.returncode, code, (command, done.stderr))
            self.assertIn(text, done.stdout + done.stderr, command)

    def test_what_is_no_data_directory(self):
        every = ("info", "verify", "dump")
        empty = os.path.join(self.node.dir, "empty")
        os.mkdir(empty)
        self.check(empty, 3, "there is no log in it", every)
        self.check(self.segment, 3, "not a directory", every)
        self.check(os.path.join(empty, "nope"), 3, "No such file or directory", every)
        self.check("", 2, "--data is empty", every)
        self.check("x" * 5000, 2, "--data is too long", every)

    def test_a_foreign_file_with_a_segment_s_name_is_damage(self):
        with open(os.path.join(self.node.log_dir(), f"{5000:020}.seg"), "wb") as file:
            file.write(os.urandom(5000))
        self.check(self.node.data, 1, f"{5000:020}.seg")
        self.check(self.node.data, 1, "its header is damaged", ("info",))

    def test_a_flipped_byte_is_damage(self):
        with open(self.segment, "r+b") as file:
            file.seek(300)
            byte = file.read(1)
            file.seek(300)
            file.write(bytes([byte[0] ^ 1]))
        self.check(self.node.data, 1, "no valid frame here")

    def test_what_stands_in_a_file_s_place_is_named(self):
        os.remove(self.segment)
        os.mkfifo(self.segment)  # nobody ever writes to it
        self.check(self.node.data, 3, f"{self.segment}: internal: not a regular file\n")
        os.remove(self.segment)
        os.mkdir(self.segment)
        self.check(self.node.data, 3, f"{self.segment}: internal: Is a directory\n")

    def test_another_format_version_is_no_damage_and_no_daemon_touches_it(self):
        for path, change in self.of_a_later_version():
            with self.subTest(os.path.basename(path)):
                with open(path, "r+b") as file:
                    good = file.read()
                    file.seek(0)
                    file.write(change(bytearray(good)))
                self.check(self.node.data, 3, f"{path}: version_mismatch: it is of another format version",
                           ("verify", "dump"))
                before = contents(self.node.data)
                done = subprocess.run([os.path.join(BIN, "walsvc"), "--config", self.node.config, "--node", "n1"],
                                      capture_output=True, text=True, check=False, timeout=60)
                self.assertEqual(done.returncode, 78, done.stderr)
                self.assertIn("has a format that this version doesn't know", done.stderr)
                self.assertEqual(contents(self.node.data), before)
                with open(path, "r+b") as file:
                    file.write(good)
        self.check(self.node.data, 0, "")

    def of_a_later_version(self):
        """The files that tell the version of a data directory, with what makes them version 2."""
        def checked(at, begin, end, seed=lambda _: 0):
            def change(data):
                data[begin + 6] = 2
                data[at:at + 4] = crc32c(seed(data), data[begin:end]).to_bytes(4, "little")
                return data
            return change

        def identity(data):
            text = data.replace(b"shanghai node 1\n", b"shanghai node 2\n")[:-len("checksum 01234567\n")]
            return text + b"checksum %08x\n" % crc32c(0, text)

        mark = os.path.join(self.node.log_dir(), "mark")
        with open(mark, "rb") as file:
            slot = 0 if file.read(1) != b"\0" else 512
        return ((self.segment, checked(60, 0, 60, lambda header: int.from_bytes(header[24:28], "little"))),
                (mark, checked(slot + 52, slot, slot + 52)), (os.path.join(self.node.data, "node"), identity))


def contents(directory):
    """Of all files below it, with their times."""
    found = {}
    for folder, _, names in os.walk(directory):
        for path in (os.path.join(folder, name) for name in names):
            with open(path, "rb") as file:
                found[path] = (file.read(), os.stat(path).st_mtime_ns)
    return found


needs_build_bin = unittest.skipUnless(os.path.realpath(BIN) == os.path.join(TOP, "build/bin"),
                                      "script/run runs what build/bin holds")


class ScriptRun(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="sh", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.dir, True)

    def script(self, *args):
        return subprocess.run([os.path.join(TOP, "script/run"), *args], capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=300)

    def ports(self, nodes):
        """Writes the topology anew, as each start does: [(id, port, admin port)]."""
        code = ('source "$1/script/lib.sh"; source "$1/script/lib-node.sh"; bin=$2 dir=$3 nodes=$4; write_topology; '
                'cat "$(topology)"')
        done = subprocess.run(["bash", "-c", "set -euo pipefail; " + code, "x", TOP, BIN, self.dir, str(nodes)],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return re.findall(r"id: (\w+), .*port: (\d+), admin_port: (\d+)", done.stdout)

    def test_directories_that_a_topology_cannot_name_are_refused(self):
        for directory, text in (("", "--dir is empty"), ("/tmp/a%nb", "holds a %"), ("/tmp/a\nb", "control characters")):
            for mode in ("--detach", "--stop"):
                done = self.script("--dir", directory, mode)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(text, done.stderr)

    def test_nodes_keep_their_ports_while_they_are_free(self):
        first = self.ports(2)
        with socket.socket() as other:
            other.bind(("127.0.0.1", int(first[0][1]) + 1))
            other.listen()
            moved = self.ports(2)
            self.assertNotEqual(moved[0][1], first[0][1])
            self.assertEqual(moved[1], first[1])
        self.assertEqual(self.ports(2), moved)  # though the first ones are free again
        self.assertEqual(self.ports(1), moved[:1])
        self.assertEqual(len({port for _, port, _ in self.ports(3)}), 3)

    @needs_build_bin
    def test_what_it_prints_can_be_pasted_whatever_the_directory_is_called(self):
        directory = os.path.join(self.dir, "a b,c'd")
        done = self.script("--dir", directory, "--detach")
        self.assertEqual(done.returncode, 0, done.stderr)
        try:
            lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
            self.assertEqual(len(lines), 4)
            for command in lines[1:]:
                subprocess.run(["bash", "-c", f"{lines[0]}; {command}"], check=True, capture_output=True)
        finally:
            stop = re.search("script/run --stop .*(?= ends it)", done.stdout)[0]
            stopped = subprocess.run(["bash", "-c", stop], cwd=TOP, capture_output=True, text=True, check=False)
        self.assertEqual((stopped.returncode, stopped.stdout), (0, "stopped: n1\n"))

    def node(self, directory, *args, check=True):
        """shanghaictl with the node that script/run started there."""
        done = run("--endpoint", f"ipc://{directory}/n1/run/query", "--format", "json", *args)
        if check:
            self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def pids(self, directory):
        rows = json.loads(self.node(directory, "svc", "tree").stdout)
        return {row["name"]: row["pid"] for row in rows if row["pid"]}

    @needs_build_bin
    def test_two_run_side_by_side_in_different_directories(self):
        directories = [os.path.join(self.dir, name) for name in ("a", "b")]
        try:
            for directory in directories:
                done = self.script("--dir", directory, "--detach")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.node(directory, "append", directory)
            pids = [self.pids(directory) for directory in directories]
            self.assertFalse(set(pids[0].values()) & set(pids[1].values()))
            self.assertEqual(self.script("--dir", directories[0], "--stop").stdout, "stopped: n1\n")
            self.assertFalse([pid for pid in pids[0].values() if process_exists(pid)])
            self.assertEqual(self.node(directories[0], "--timeout", "100ms", "status", check=False).returncode, 3)
            self.assertEqual(json.loads(self.node(directories[1], "read").stdout)["payload"], directories[1])
            self.assertEqual(self.pids(directories[1]), pids[1])
        finally:
            for directory in directories:
                self.script("--dir", directory, "--stop")

    @staticmethod
    def read_until(terminal, text):
        """What is written to it, up to the text or its end."""
        seen = b""
        while text is None or text not in seen:
            if not select.select([terminal], [], [], 120)[0]:
                raise AssertionError(f"nothing more on the terminal: {seen}")
            try:
                seen += os.read(terminal, 4096)
            except OSError:  # the other side is closed
                break
        return seen

    @needs_build_bin
    def test_ctrl_c_stops_everything(self):
        script, terminal = pty.fork()
        if script == 0:
            os.execv(os.path.join(TOP, "script/run"), ["script/run", "--dir", self.dir])
        try:
            self.assertIn(b"Ctrl-C stops it", self.read_until(terminal, b"Ctrl-C stops it"))
            pids = self.pids(self.dir)
            self.assertLessEqual(set(SERVICES), set(pids))
            os.write(terminal, b"\x03")
            self.assertIn(b"stopping", self.read_until(terminal, None))
            code = os.waitstatus_to_exitcode(os.waitpid(script, 0)[1])
            script = None
            self.assertEqual(code, 0)
            self.assertFalse([pid for pid in pids.values() if process_exists(pid)])
            self.assertEqual(self.script("--dir", self.dir, "--stop").stdout, f"stopped: nothing ran under {self.dir}\n")
        finally:
            os.close(terminal)  # which hangs up, if it still runs
            if script is not None:
                os.waitpid(script, 0)
            self.script("--dir", self.dir, "--stop")


if __name__ == "__main__":
    unittest.main()
