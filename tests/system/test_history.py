"""The judge of clients' histories (tests/lib/history.py): a good history passes, and each rule catches what breaks it."""
import unittest

from history import Call, faults

A, B = "log of n1", "log of n2"
OWNERS = {A: "n1", B: "n2"}


def a_call(node, *values, at=0):
    return Call(node, list(values), at)


def history():
    """Two calls to n1, one after the other, beside an unknown one that came about and one that did not; a refused one; one
    to n2."""
    calls = {
        "first": a_call("n1", "a", "b", at=0).ok(1, A, 1, "quorum"),
        "second": a_call("n1", "c", at=3).ok(4, A, 4, "local"),
        "late": a_call("n1", "d", at=1.5),
        "never": a_call("n1", "e", "f", at=2),
        "refused": a_call("n2", "g", at=0).failed(1),
        "other": a_call("n2", "h", at=0).ok(9, B, 1, "all"),
    }
    log = {A: ["a", "b", "d", "c"], B: ["h"]}
    return calls, log


def found(calls, log, others=None, lost=()):
    """others: what the second node has, if that is something else."""
    def numbered(of):
        return {uuid: list(enumerate(values, 1)) for uuid, values in of.items()}
    logs = {"n1": numbered(log), "n2": numbered(others or log)}
    return list(faults(list(calls.values()), logs, OWNERS, lost))


class Judge(unittest.TestCase):
    def setUp(self):
        self.calls, self.log = history()

    def assert_caught(self, said, **options):
        all_found = found(self.calls, self.log, **options)
        self.assertTrue(any(said in fault for fault in all_found), all_found)

    def test_a_good_history(self):
        self.assertEqual(found(self.calls, self.log), [])

    def test_unknown_ones_may_be_there_or_not(self):
        self.log[A] = ["a", "b", "d", "c", "e", "f"]
        self.assertEqual(found(self.calls, self.log), [])
        self.log[A] = ["a", "b", "c"]
        self.calls["second"].lsn = 3
        self.assertEqual(found(self.calls, self.log), [])

    def test_an_acknowledged_one_that_is_lost(self):
        self.log[B] = []
        self.assert_caught("acknowledged (all) and lost: h")
        self.log[A] = ["a", "b", "d"]
        self.assert_caught("acknowledged (local) and lost: c")

    def test_what_a_lost_disk_may_take(self):
        """Only what was durable nowhere else."""
        self.log[A] = ["a", "b", "d"]
        self.assertEqual(found(self.calls, self.log, lost=[A]), [])
        self.log[A] = []
        self.assert_caught("acknowledged (quorum) and lost: a", lost=[A])

    def test_another_lsn_than_was_answered(self):
        self.log[A] = ["a", "b", "c", "d"]
        self.assert_caught("answered as LSN 4, stands at 3: c")

    def test_another_log_than_was_answered(self):
        self.calls["first"].log = B
        self.assert_caught("answered as LSN 1, stands at 1: a")

    def test_other_bytes(self):
        self.log[A][3] = "C"
        self.assert_caught("LSN 4 of n1 was never sent: C")
        self.assert_caught("acknowledged (local) and lost: c")

    def test_what_stands_there_twice(self):
        self.log[A] += ["d"]
        self.assert_caught("stands there twice: d")
        self.log[A], self.log[B] = self.log[A][:-1], ["h", "h"]
        self.assert_caught("stands there twice: h")

    def test_what_was_never_sent(self):
        self.log[B] += ["x"]
        self.assert_caught("LSN 2 of n2 was never sent: x")

    def test_what_was_sent_to_another_node(self):
        self.log[B] += ["e", "f"]
        self.assert_caught("LSN 2 of n2 was sent to n1: e")

    def test_what_was_refused(self):
        self.log[B] += ["g"]
        self.assert_caught("LSN 2 of n2 was refused: g")

    def test_a_part_of_a_call(self):
        self.log[A] += ["e"]
        self.assert_caught("only a part is there: e")

    def test_a_call_whose_values_do_not_stand_together(self):
        self.log[A] += ["f", "e"]
        self.assert_caught("does not stand together: e")

    def test_the_order_of_calls_that_did_not_overlap(self):
        self.log[A] = ["c", "a", "b", "d"]
        self.calls["second"].lsn, self.calls["first"].lsn = 1, 2
        self.assert_caught("LSN 1 stands before 2, which had been answered before: c")

    def test_an_unknown_one_does_not_stand_before_what_it_came_after(self):
        self.log[A] = ["d", "a", "b", "c"]
        self.calls["first"].lsn = 2
        self.assert_caught("LSN 1 stands before 2, which had been answered before: d")

    def test_a_gap_in_the_numbers(self):
        logs = {name: {A: [(1, "a"), (2, "b"), (4, "c")], B: [(1, "h")]} for name in ("n1", "n2")}
        self.assertIn("LSN 4 of n1 stands at place 3", list(faults(list(self.calls.values()), logs, OWNERS)))

    def test_copies_that_differ(self):
        self.assert_caught(f"{A} is another one at n2 than at n1", others=self.log | {A: ["a", "b", "d"]})
        self.assert_caught(f"{B} is another one at n2 than at n1", others={A: self.log[A]})


if __name__ == "__main__":
    unittest.main()
