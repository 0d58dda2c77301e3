"""A client of a link that speaks by hand: any message, byte for byte as it is wanted."""
import random

from supervised import pack, unpack
from wire import PUSH, REQ, Wire

POLL, POLL_REPLY = 1, 2


class Caller:
    """One session with a daemon's link. Every integer it sends is of 8 bytes, every length of 4."""

    def __init__(self, test, push, req):
        self.push, self.req = Wire(push, PUSH), Wire(req, REQ)
        test.addCleanup(self.push.close)
        test.addCleanup(self.req.close)
        self.session = random.randbytes(16)
        self.sent = self.received = self.incarnation = self.accepted = 0
        self.answers = []

    def message(self, kind, number, previous, body):
        return pack([1, kind, 7, None, "", [self.session, number, previous], body])

    def send(self, kind, body):
        self.sent += 1
        self.push.send(self.message(kind, self.sent, self.sent - 1, body))
        return self.sent

    def poll(self, wait_ms=0):
        """Fetches what is there; a session that does not is dropped after a while."""
        self.req.send(self.message(POLL, 0, 0, {1: self.received, 2: wait_ms, 3: self.incarnation}))
        (_, kind, *_, body), _ = unpack(self.req.receive())
        assert kind == POLL_REPLY, (kind, body)
        self.received, self.incarnation, self.accepted = body[1], body[2], body[3]
        self.answers += body[6]

    def take(self):
        """The next answer: (number of the request, type, body)."""
        while not self.answers:
            self.poll(5000)
        return self.answers.pop(0)

    def ask(self, kind, body):
        number = self.send(kind, body)
        answered, kind, body = self.take()
        assert answered == number
        return kind, body
