"""The judge of sessions' histories (tests/lib/sessions.py): a good history passes, and each rule catches what breaks it."""
import unittest

from sessions import FAILED, OK, UNKNOWN, Frame, Read, Write, faults

A, B = "log of n1", "log of n2"


class History:
    """Frames and steps, one after the other; a version's HLC is told by the test."""

    def __init__(self):
        self.steps, self.frames, self.marks = [], [], {}
        self.ends = {A: 0, B: 0}

    def time(self):
        return len(self.steps)

    def frame(self, log, hlc, **written):
        """None deletes."""
        lsn = self.ends[log] + 1
        self.ends[log] += len(written)
        frame = Frame(log, lsn, {key: ((hlc, log, lsn + i), value) for i, (key, value) in enumerate(written.items())})
        self.frames.append(frame)
        return frame

    def write(self, session, log, hlc, outcome=OK, node="n1", **written):
        frame = self.frame(log, hlc, **written)
        self.marks[self.time()] = frame
        self.steps.append(Write(session, self.time(), node, self.time(), outcome, log, frame.lsn))
        return frame

    def read(self, session, node="n2", instant=False, **shown):
        """shown: the frame whose value each key shows, or None."""
        rows = {key: frame and frame.written[key] for key, frame in shown.items()}
        self.steps.append(Read(session, self.time(), node, rows, instant))

    def faults(self, across=True):
        return faults(self.steps, self.frames, self.marks, across)


class Judge(unittest.TestCase):
    def setUp(self):
        self.h = History()

    def assert_caught(self, why, across=True):
        found = self.h.faults(across)
        self.assertEqual([fault.split(":")[0] for fault in found], [why], found)

    def assert_good(self, across=True):
        self.assertEqual(self.h.faults(across), [])

    def test_a_good_history(self):
        h = self.h
        first = h.write("s", A, 1, x="1", y="1")
        h.read("t", x=None)
        h.read("s", x=first, y=first)
        other = h.write("t", B, 2, x="2")
        h.read("s", x=first)  # it has not seen the other one
        h.read("t", x=other, y=None)
        h.read("s", x=other, y=first)
        gone = h.write("s", A, 3, x=None)
        h.read("s", x=None)
        h.read("t", x=other)
        h.read("t", x=None)
        again = h.write("t", B, 4, x="3")
        h.read("s", x=again)
        h.read("s", x=again, y=first, instant=True)
        self.assertIsNotNone(gone)
        self.assert_good()

    def test_a_write_that_its_session_does_not_see(self):
        old = self.h.write("t", A, 1, x="old")
        self.h.write("s", A, 2, x="new")
        self.h.read("t", x=old)
        self.h.read("s", x=old)
        self.assert_caught("read your writes")

    def test_a_write_of_which_its_session_sees_nothing(self):
        self.h.write("s", A, 1, x="new")
        self.h.read("s", x=None)
        self.assert_caught("read your writes")

    def test_a_delete_before_the_write_does_not_excuse_it(self):
        self.h.write("t", A, 1, x=None)
        self.h.write("s", A, 2, x="new")
        self.h.read("s", x=None)
        self.assert_caught("read your writes")

    def test_a_delete_that_its_session_does_not_see(self):
        old = self.h.write("s", A, 1, x="old")
        self.h.write("s", A, 2, x=None)
        self.h.read("s", x=old)
        self.assert_caught("read your writes")

    def test_a_later_write_of_another_may_be_seen_instead(self):
        self.h.write("s", A, 1, x="mine")
        other = self.h.write("t", B, 2, x="other")
        self.h.read("s", x=other)
        self.assert_good()

    def test_an_unknown_write_need_not_be_seen_and_may_be(self):
        old = self.h.write("t", A, 1, x="old")
        new = self.h.write("s", A, 2, UNKNOWN, x="new")
        self.h.read("s", x=old)
        self.h.read("s", x=new)
        self.assert_good()
        self.h.read("s", x=old)
        self.assert_caught("monotonic reads")

    def test_a_read_that_goes_back(self):
        old, new = self.h.write("t", A, 1, x="old"), self.h.write("t", A, 2, x="new")
        self.h.read("s", x=new)
        self.h.read("r", x=old)
        self.h.read("s", node="n3", x=old)
        self.assert_caught("monotonic reads")

    def test_a_read_that_goes_back_to_nothing(self):
        new = self.h.write("t", A, 1, x="new")
        self.h.read("s", x=new)
        self.h.read("s", x=None)
        self.assert_caught("monotonic reads")

    def test_a_read_that_goes_back_behind_a_delete(self):
        old, gone = self.h.write("t", A, 1, x="old"), self.h.write("t", A, 2, x=None)
        self.h.read("s", x=old)
        self.h.read("s", x=None)
        self.h.read("s", x=old)
        self.assertIsNotNone(gone)
        self.assert_caught("monotonic reads")

    def test_half_of_a_frame(self):
        old = self.h.write("t", A, 1, x="old", y="old")
        new = self.h.write("t", A, 2, x="new", y="new")
        self.h.read("s", x=new, y=old)  # two reads, as far as is known
        self.assert_good()
        self.h.read("s", y=old)
        self.assert_caught("whole frames")

    def test_half_of_a_frame_at_one_instant(self):
        old = self.h.write("t", A, 1, x="old", y="old")
        new = self.h.write("t", A, 2, x="new", y="new")
        self.h.read("s", instant=True, y=old, x=new)
        self.assert_caught("whole frames")

    def test_a_write_below_one_of_the_same_session(self):
        self.h.write("s", A, 5, x="first")
        self.h.write("s", B, 4, x="second")
        self.assert_caught("monotonic writes")

    def test_a_write_that_is_seen_before_an_earlier_one(self):
        self.h.write("s", A, 1, x="first")
        second = self.h.write("s", B, 2, y="second")
        self.h.read("t", y=second)
        self.h.read("t", x=None)
        self.assert_good(across=False)
        self.assert_caught("monotonic writes")

    def test_a_write_below_what_was_read(self):
        other = self.h.write("t", A, 5, x="other")
        self.h.read("s", x=other)
        self.h.write("s", B, 4, x="mine")
        self.assert_caught("writes follow reads")

    def test_a_write_that_is_seen_before_what_its_writer_had_read(self):
        cause = self.h.write("t", A, 1, x="cause")
        self.h.read("s", x=cause)
        effect = self.h.write("s", B, 2, y="effect")
        self.h.read("r", y=effect, node="n3")
        self.h.read("r", x=None, node="n3")
        self.assert_good(across=False)
        self.assert_caught("writes follow reads")

    def test_causes_reach_through_sessions(self):
        first = self.h.write("s1", A, 1, x="1")
        self.h.read("s2", x=first)
        second = self.h.write("s2", B, 2, y="2")
        self.h.read("s3", y=second)
        third = self.h.write("s3", A, 3, z="3")
        self.h.read("s4", z=third)
        self.h.read("s4", x=None)
        self.assert_caught("writes follow reads")

    def test_an_unknown_write_has_causes_too(self):
        cause = self.h.write("t", A, 1, x="cause")
        self.h.read("s", x=cause)
        effect = self.h.write("s", B, 2, UNKNOWN, y="effect")
        self.h.read("r", y=effect)
        self.h.read("r", x=None)
        self.assert_caught("writes follow reads")

    def test_what_was_refused_and_is_there(self):
        self.h.write("s", A, 1, FAILED, x="refused")
        self.assert_caught("refused and done")

    def test_what_was_acknowledged_and_is_lost(self):
        self.h.frames.remove(self.h.write("s", A, 1, x="lost"))
        self.assert_caught("acknowledged and lost")

    def test_what_nobody_wrote(self):
        real = self.h.write("s", A, 1, x="1", y="2")
        for rows in ({"x": ((9, A, 9), "1")}, {"x": (real.written["x"][0], "other")}, {"x": real.written["y"]}):
            with self.subTest(rows=rows):
                self.h.steps[1:] = [Read("t", 1, "n2", rows)]
                self.assert_caught("nobody wrote that")


if __name__ == "__main__":
    unittest.main()
