"""What querysvc passes on to membersvc and replsvc: the same answers by both links, at once an error while they are away,
and nothing by tcp that changes the cluster."""
import unittest

from caller import Caller
from shanghai import Node, wait_for

ERROR, NODES, NODES_REPLY, NODE_JOIN, NODE_JOIN_REPLY, NODE_LEAVE, NODE_LEAVE_REPLY = 3, 96, 97, 99, 100, 101, 102
EVENTS, EVENTS_REPLY, WAL_INFO, WAL_INFO_REPLY, REPLICAS, REPLICAS_REPLY = 103, 104, 28, 29, 120, 121
ALARM, ALARM_REPLY = 107, 108
BAD_REQUEST, UNAVAILABLE, FORBIDDEN, ALREADY_MEMBER, NOT_MEMBER = 1, 12, 18, 15, 16
JOIN = {1: "n2", 2: "127.0.0.1", 3: 7000}
NO_SERIES = bytes(16)


class PassedOn(unittest.TestCase):
    def setUp(self):
        self.node = Node()
        self.addCleanup(self.node.close)
        self.node.start()
        wait_for(self.is_founded, "a founded cluster")

    def is_founded(self):
        """False also while querysvc has not met membersvc yet."""
        kind, body = self.caller("query").ask(EVENTS, {1: NO_SERIES, 2: 0, 3: 1000})
        return kind == EVENTS_REPLY and body[3]

    def caller(self, link):
        return Caller(self, f"{self.node.run}/{link}.in", f"{self.node.run}/{link}.out")

    def tcp_caller(self):
        return Caller(self, ("127.0.0.1", self.node.port), ("127.0.0.1", self.node.port + 1))

    def test_both_links_answer_the_same(self):
        mine, its = self.caller("query"), self.caller("member")
        self.assertEqual(mine.ask(NODE_JOIN, JOIN), (NODE_JOIN_REPLY, {1: 2}))
        self.assertEqual(mine.ask(NODE_JOIN, JOIN)[1], its.ask(NODE_JOIN, JOIN)[1])
        self.assertEqual(mine.ask(NODE_JOIN, JOIN)[1][1], ALREADY_MEMBER)
        kind, left = mine.ask(NODE_LEAVE, {1: "n2"})
        self.assertEqual((kind, left[1]), (NODE_LEAVE_REPLY, 2))
        events = {1: NO_SERIES, 2: 0, 3: 0}
        self.assertEqual(mine.ask(EVENTS, events)[0], EVENTS_REPLY)
        self.assertEqual(mine.ask(EVENTS, events), its.ask(EVENTS, events))
        kind, nodes = mine.ask(NODES, {})
        self.assertEqual((kind, [node[1][1] for node in nodes[4]]), (NODES_REPLY, ["n1", "n2"]))
        self.assertEqual(mine.ask(NODE_LEAVE, {})[1][1], BAD_REQUEST)

    def test_while_membersvc_is_away_the_answer_is_unavailable_at_once(self):
        mine = self.caller("query")
        self.node.ctl("svc", "stop", "membersvc")
        for kind, body in ((NODES, {}), (NODE_JOIN, JOIN), (NODE_LEAVE, {1: "n2"}),
                           (EVENTS, {1: NO_SERIES, 2: 0, 3: 60000})):
            kind, error = wait_for(lambda kind=kind, body=body: self.refusal(mine, kind, body), "a refusal")
            self.assertEqual((error[1], error[2]), (UNAVAILABLE, "membersvc does not answer"))
        self.assertEqual(mine.ask(WAL_INFO, {})[0], WAL_INFO_REPLY)
        self.node.ctl("svc", "start", "membersvc")
        wait_for(lambda: mine.ask(NODES, {})[0] == NODES_REPLY, "membersvc again")

    def test_replicas_are_passed_on_and_unavailable_while_replsvc_is_away(self):
        mine, its = self.caller("query"), self.caller("repl")
        wait_for(lambda: mine.ask(REPLICAS, {})[0] == REPLICAS_REPLY, "replsvc")
        self.assertEqual(mine.ask(REPLICAS, {}), its.ask(REPLICAS, {}))
        self.assertEqual(self.tcp_caller().ask(REPLICAS, {})[0], REPLICAS_REPLY)
        self.node.ctl("svc", "stop", "replsvc")
        wait_for(lambda: self.refusal(mine, REPLICAS, {}, "replsvc does not answer"), "a refusal")
        self.assertEqual(mine.ask(NODES, {})[0], NODES_REPLY)
        self.node.ctl("svc", "start", "replsvc")
        wait_for(lambda: mine.ask(REPLICAS, {})[0] == REPLICAS_REPLY, "replsvc again")

    def refusal(self, caller, kind, body, text="membersvc does not answer"):
        """The answer when it is the one of a daemon that is known to be away: just after its end it may still be asked."""
        kind, body = caller.ask(kind, body)
        return (kind, body) if kind == ERROR and body[2] == text else None

    def test_a_long_poll_ends_when_membersvc_is_lost(self):
        mine = self.caller("query")
        last = mine.ask(EVENTS, {1: NO_SERIES, 2: 0, 3: 0})[1][3][-1][1]
        mine.send(EVENTS, {1: NO_SERIES, 2: last, 3: 60000})
        self.node.ctl("svc", "stop", "membersvc")
        _, kind, body = mine.take()
        self.assertEqual((kind, body[1]), (ERROR, UNAVAILABLE))

    def test_by_tcp_the_cluster_can_be_seen_and_not_changed(self):
        far = self.tcp_caller()
        for kind, body in ((NODE_JOIN, JOIN), (NODE_LEAVE, {1: "n1"})):
            kind, error = far.ask(kind, body)
            self.assertEqual((kind, error[1]), (ERROR, FORBIDDEN))
        kind, nodes = far.ask(NODES, {})
        self.assertEqual((kind, [node[1][1] for node in nodes[4]]), (NODES_REPLY, ["n1"]))
        self.assertEqual(far.ask(EVENTS, {1: NO_SERIES, 2: 0, 3: 0})[0], EVENTS_REPLY)

    def test_an_alarm_is_taken_from_this_nodes_daemons(self):
        its, alarm = self.caller("member"), {1: "n1", 2: "something is wrong"}
        for caller, body, code in ((its, {1: "n1"}, BAD_REQUEST), (its, {1: "n9", 2: "x"}, NOT_MEMBER),
                                   (self.caller("query"), alarm, BAD_REQUEST), (self.tcp_caller(), alarm, BAD_REQUEST)):
            kind, error = caller.ask(ALARM, body)
            self.assertEqual((kind, error[1]), (ERROR, code))
        self.assertEqual(its.ask(ALARM, alarm), (ALARM_REPLY, {}))
        event = its.ask(EVENTS, {1: NO_SERIES, 2: 0, 3: 0})[1][3][-1]
        self.assertEqual((event[2], event[4], event[7]), (16, *alarm.values()))


if __name__ == "__main__":
    unittest.main()
