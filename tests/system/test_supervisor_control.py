"""shanghaid's control socket, obituaries and the services' output."""
import os
import random
import signal
import socket
import stat
import subprocess
import unittest

from shanghai import process_exists, wait_for
from supervised import Supervised, command_packet, pack, unpack

THREE = "  children:\n    - {service: a@}\n    - {service: b@}\n    - {service: c@}\n"
ONE = "  children:\n    - {service: a@}\n"
BAD_REQUEST, TOO_LARGE, CONFLICT, NOT_FOUND, VERSION_MISMATCH = 1, 2, 6, 8, 19


class Commands(unittest.TestCase):
    def test_stop_start_restart(self):
        with Supervised(THREE) as s:
            s.start()
            pid = s.node("b")["pid"]
            self.assertEqual(s.call("restart", "b")[1], 0)
            node = s.wait_new_pid("b", pid)
            self.assertEqual(node["restarts"], 0)
            self.assertEqual(s.call("stop", "b")[1], 0)
            s.wait_state("b", "stopped")
            self.assertFalse(process_exists(node["pid"]))
            self.assertEqual(s.call("start", "b")[1], 0)
            s.wait_state("b", "running")
            self.assertEqual(s.obituaries(), [])

    def test_shutdown(self):
        with Supervised(THREE) as s:
            s.start()
            s.wait_event("c ready")
            self.assertEqual(s.call("shutdown")[1], 0)
            self.assertEqual(s.wait_exit(), 0)
            self.assertEqual(s.story()[6:], ["c term", "b term", "a term"])
            self.assertFalse(os.path.exists(os.path.join(s.run, "supervisor.sock")))

    def test_refusals_are_named(self):
        with Supervised(THREE) as s:
            s.start()
            for code, command, name in ((NOT_FOUND, "restart", "nobody"), (BAD_REQUEST, "restart", ""),
                                        (BAD_REQUEST, "dance", "a"), (BAD_REQUEST, "stop", "root"),
                                        (NOT_FOUND, "obituary", "nobody")):
                reply = s.call(command, name)
                self.assertEqual(reply[1], code, (command, name))
                self.assertTrue(reply[2])

    def test_start_below_a_stopped_supervisor_is_a_conflict(self):
        with Supervised("  children:\n    - supervisor: inner\n      children:\n        - {service: a@}\n") as s:
            s.start()
            s.call("stop", "inner")
            s.wait_state("inner", "stopped")
            self.assertEqual(s.call("start", "a")[1], CONFLICT)
            self.assertEqual(s.call("start", "inner")[1], 0)
            s.wait_state("a", "running")

    def test_socket_is_for_its_user_only(self):
        with Supervised(ONE) as s:
            s.start()
            for name in ("supervisor.sock", "notify.1"):
                mode = os.stat(os.path.join(s.run, name)).st_mode
                self.assertTrue(stat.S_ISSOCK(mode))
                self.assertEqual(stat.S_IMODE(mode), 0o600)
            self.assertEqual(stat.S_IMODE(os.stat(s.run).st_mode), 0o700)


class BadInput(unittest.TestCase):
    def ask(self, s, packet):
        """The answer's error code, or None when the connection was closed without one."""
        with s.connect() as connection:
            try:
                connection.send(packet)
                answer = connection.recv(1 << 20)
            except ConnectionError:
                return None
        return unpack(answer)[0][6][1] if answer else None

    def test_malformed_messages_get_a_named_error(self):
        whole = command_packet("tree")
        bad = {b"\x00": BAD_REQUEST, b"\xc1" * 100: BAD_REQUEST, whole + b"\x00": BAD_REQUEST,
               b"\x91" * 4000: BAD_REQUEST, b"\xdd\xff\xff\xff\xff" * 31: BAD_REQUEST,
               command_packet("tree", version=2): VERSION_MISMATCH, command_packet("tree", kind=65): BAD_REQUEST,
               command_packet("tree", kind=1): BAD_REQUEST, command_packet("x" * 33): TOO_LARGE,
               command_packet("tree", "x" * 65): TOO_LARGE, command_packet("tree", "x" * 5000): TOO_LARGE,
               os.urandom(100000): TOO_LARGE,
               pack([1, 64, 7, b"othrclus", "", [bytes(16), 0, 0], {1: "tree"}]): BAD_REQUEST}
        with Supervised(ONE) as s:
            s.start()
            for packet, code in bad.items():
                self.assertEqual(self.ask(s, packet), code, packet[:40])
            for end in range(1, len(whole)):
                self.assertEqual(self.ask(s, whole[:end]), BAD_REQUEST, end)
            self.assertEqual(s.node("a")["restarts"], 0)
            self.assertEqual(s.stop(), 0)

    def test_random_bytes_never_end_it(self):
        seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
        print(f"seed {seed}")
        rng = random.Random(seed)
        with Supervised(ONE) as s:
            s.start()
            before = self.memory_kib(s)
            for _ in range(1500):
                packet = bytearray(command_packet(rng.choice(["tree", "obituary", "start"]), rng.choice(["", "a"])))
                for _ in range(rng.randrange(1, 6)):
                    packet[rng.randrange(len(packet))] = rng.randrange(256)
                self.ask(s, bytes(packet) if rng.random() < 0.7 else rng.randbytes(rng.randrange(1, 6000)))
            self.assertEqual(s.node("a")["state"], "running")
            allowed = 65536 if "libasan" in s.maps() else 1024  # freed memory is kept in quarantine there
            self.assertLess(self.memory_kib(s), before + allowed)

    def memory_kib(self, s):
        with open(f"/proc/{s.process.pid}/status", encoding="ascii") as file:
            return int(next(line for line in file if line.startswith("VmRSS")).split()[1])

    def test_silent_connections_keep_nobody_out(self):
        with Supervised(ONE) as s:
            s.start()
            idle = [s.connect() for _ in range(40)]
            self.assertEqual(s.node("a")["state"], "running")
            self.assertLess(len(os.listdir(f"/proc/{s.process.pid}/fd")), 50)
            for connection in idle:
                connection.close()

    def test_client_that_reads_no_answers_is_closed(self):
        with Supervised(ONE) as s:
            s.start()
            deaf = s.connect(timeout=20)
            with self.assertRaises(ConnectionError):
                for _ in range(100000):
                    deaf.send(command_packet("tree"))
            deaf.close()
            self.assertEqual(s.node("a")["state"], "running")

    def test_connect_and_close_at_once(self):
        with Supervised(ONE) as s:
            s.start()
            for _ in range(300):
                s.connect().close()
            stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with self.assertRaises(OSError):
                stream.connect(os.path.join(s.run, "supervisor.sock"))
            stream.close()
            self.assertEqual(s.node("a")["state"], "running")


class Obituaries(unittest.TestCase):
    def test_obituary_tells_cause_and_last_lines(self):
        with Supervised(ONE) as s:
            s.play("a", says="a first line\nan unfinished \xff one")
            s.start()
            pid = s.kill("a", signal.SIGSEGV)
            s.wait_new_pid("a", pid)
            (death,) = s.obituaries()
            self.assertEqual({key: death[key] for key in ("service", "pid", "cause", "exit_code", "signal", "restarts")},
                             {"service": "a", "pid": pid, "cause": "signal 11 (SIGSEGV)", "exit_code": 0,
                              "signal": 11, "restarts": 0})
            self.assertIn(death["core"], (True, False))
            self.assertGreater(death["uptime_ms"], 0)
            self.assertAlmostEqual(death["time_ms"] / 1000, os.stat(s.config).st_mtime, delta=60)
            self.assertEqual(death["lines"], ["a first line", "an unfinished \ufffd one"])

    def test_newest_first_by_service_and_limit_and_across_restarts_of_the_supervisor(self):
        with Supervised("  intensity: 100\n  backoff: false\n" + ONE + "    - {service: b@}\n") as s:
            s.start()
            for name in "aababa":
                s.wait_new_pid(name, s.kill(name))
            self.assertEqual([death["service"] for death in s.obituaries()], list("ababaa"))
            self.assertEqual([death["restarts"] for death in s.obituaries("a")], [3, 2, 1, 0])
            self.assertEqual(len(s.obituaries("b", 1)), 1)
            s.stop()
            s.start()
            self.assertEqual([death["service"] for death in s.obituaries(limit=2)], list("ab"))

    def test_only_the_newest_are_kept_and_foreign_files_are_left_alone(self):
        with Supervised("  intensity: 1000\n  backoff: false\n" + ONE) as s:
            folder = os.path.join(s.data, "obituaries")
            os.makedirs(folder)
            for i in range(150):
                with open(f"{folder}/{i:020d}-old.obituary", "wb") as file:
                    file.write(b"\xc1 damaged")
            with open(f"{folder}/notes.txt", "w", encoding="ascii") as file:
                file.write("mine")
            s.start()
            s.wait_new_pid("a", s.kill("a"))
            wait_for(lambda: len(os.listdir(folder)) == 101, "the old ones to go")
            self.assertIn("notes.txt", os.listdir(folder))
            self.assertEqual([death["service"] for death in s.obituaries(limit=1000)], ["a"])

    def test_clock_that_was_set_back_loses_no_obituary(self):
        with Supervised("  intensity: 1000\n  backoff: false\n" + ONE) as s:
            folder = os.path.join(s.data, "obituaries")
            os.makedirs(folder)
            for i in range(100):
                with open(f"{folder}/{4 * 10**18 + i:020d}-old.obituary", "wb") as file:
                    file.write(b"\xc1 written in 2096")
            s.start()
            for _ in range(3):
                s.wait_new_pid("a", s.kill("a"))
            self.assertEqual([death["restarts"] for death in s.obituaries()], [2, 1, 0])
            self.assertEqual(len(os.listdir(folder)), 100)

    def test_obituaries_that_cannot_be_written_keep_nothing_down(self):
        with Supervised("  intensity: 1000\n  backoff: false\n" + ONE) as s:
            s.start()
            s.wait_new_pid("a", s.kill("a"))
            folder = os.path.join(s.data, "obituaries")
            os.rename(folder, folder + ".away")
            s.wait_new_pid("a", s.kill("a"))
            self.assertTrue(s.logged("an obituary cannot be written"))
            self.assertEqual(s.obituaries(), [])
            os.rename(folder + ".away", folder)
            s.wait_new_pid("a", s.kill("a"))
            self.assertEqual([death["restarts"] for death in s.obituaries()], [2, 0])

    def test_obituaries_fit_into_one_answer(self):
        with Supervised("  intensity: 1000\n  backoff: false\n" + ONE) as s:
            s.play("a", says=("x" * 2000 + "\n") * 30)
            s.start()
            for _ in range(25):
                s.wait_new_pid("a", s.kill("a"))
            deaths = s.obituaries(limit=100)
            self.assertGreater(len(deaths), 5)
            self.assertLessEqual(sum(len(line) for death in deaths for line in death["lines"]), 128 << 10)
            self.assertEqual([len(line) for line in deaths[0]["lines"]], [512] * 20)


class Output(unittest.TestCase):
    def test_lines_go_on_unchanged_and_into_a_file(self):
        with Supervised(ONE) as s:
            s.play("a", says='{"a":"line"}\n\xff\x00 bytes\n' + "y" * 9000 + "\n")
            s.start()
            text = b'{"a":"line"}\n\xff\x00 bytes\n' + b"\n".join([b"y" * 4000, b"y" * 4000, b"y" * 1000]) + b"\n"
            path = os.path.join(s.run, "log", "a.log")

            def arrived():
                with open(path, "rb") as file:
                    return file.read() == text
            s.wait(arrived, "the lines in the file")

            def gone_on():
                with open(s.log_path, "rb") as file:
                    return text in file.read()
            s.wait(gone_on, "the lines to go on")

    def test_file_is_bounded_and_rotated(self):
        with Supervised(ONE.replace("@", "@, start_timeout: 5m")) as s:
            s.play("a", lines=400000)
            s.start(wait=False)
            folder = os.path.join(s.run, "log")

            def is_over():
                with open(os.path.join(folder, "a.log"), encoding="ascii") as file:
                    return file.read().endswith("line 399999\n") and s.logged("line 399999")
            s.wait_event("a ready", timeout=240)
            wait_for(is_over, "the last line", 120, 0.1)
            self.assertEqual(sorted(os.listdir(folder)), ["a.log", "a.log.1"])
            for name in os.listdir(folder):
                self.assertLessEqual(os.stat(os.path.join(folder, name)).st_size, 1 << 20)
            with open(os.path.join(folder, "a.log.1"), encoding="ascii") as old, \
                 open(os.path.join(folder, "a.log"), encoding="ascii") as new:
                numbers = [int(line.split()[1]) for line in old.read().splitlines() + new.read().splitlines()]
            self.assertEqual(numbers, list(range(numbers[0], 400000)))

    def test_service_that_closes_its_output_lives_on(self):
        with Supervised(ONE) as s:
            s.play("a", says="last words\n", closes_output=True)
            s.start()

            def pipes():
                folder = f"/proc/{s.process.pid}/fd"
                return [fd for fd in os.listdir(folder) if "pipe:" in os.readlink(os.path.join(folder, fd))]
            s.wait(lambda: not pipes(), "the supervisor to close its end")
            self.assertEqual(s.node("a")["state"], "running")
            s.wait_new_pid("a", s.kill("a"))
            self.assertEqual(s.obituaries()[0]["lines"], ["last words"])

    def test_nobody_reads_standard_error_and_it_works_on(self):
        with Supervised(ONE) as s:
            s.play("a", lines=50000)
            s.start(stderr=subprocess.PIPE)
            s.wait_event("a ready")
            s.wait_new_pid("a", s.kill("a"))
            self.assertEqual(s.stop(), 0)
            s.process.stderr.close()

    def test_standard_error_is_closed_and_it_works_on(self):
        with Supervised(ONE) as s:
            s.play("a", lines=1000)
            s.start(wait=False, stderr=subprocess.PIPE)
            s.process.stderr.close()
            s.wait_state("a", "running")
            s.wait_new_pid("a", s.kill("a"))
            self.assertEqual(s.stop(), 0)


if __name__ == "__main__":
    unittest.main()
