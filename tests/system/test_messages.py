"""What shows only to a client that speaks by hand: bytes that are passed on as they are, who answers what, and when."""
import os
import unittest

from caller import Caller
from shanghai import Node
from supervised import pack

ERROR, APPEND, APPEND_REPLY = 3, 16, 17
HELLO, HELLO_REPLY, READ, READ_REPLY, STATUS, STATUS_REPLY = 32, 33, 34, 35, 36, 37
BAD_REQUEST = 1
SEGMENT_HEADER, FRAME_HEADER = 64, 88


def append_of(entries):
    return {1: bytes(16), 2: 0, 3: 0, 4: 0, 5: 0, 6: entries}


class Messages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node().start()

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def local(self, name="query"):
        return Caller(self, f"{self.node.run}/{name}.in", f"{self.node.run}/{name}.out")

    def over_tcp(self):
        return Caller(self, ("127.0.0.1", self.node.port), ("127.0.0.1", self.node.port + 1))

    def test_a_read_since_a_time_to_come_is_answered_when_it_has_come(self):
        """Not before, with nothing: who asks again at once would ask for ever."""
        writer, reader = self.local(), self.local()
        kind, body = writer.ask(APPEND, append_of([[0, "", b"before"]]))
        self.assertEqual(kind, APPEND_REPLY)
        number = reader.send(READ, {2: 1, 3: 1 << 20, 4: 1000, 5: 30000, 6: body[5] + 1})
        kind, _ = reader.ask(STATUS, {})  # by then the read is parked
        self.assertEqual(kind, STATUS_REPLY)
        kind, after = writer.ask(APPEND, append_of([[0, "", b"after"]]))
        self.assertEqual(kind, APPEND_REPLY)
        answered, kind, reply = reader.take()
        self.assertEqual((answered, kind), (number, READ_REPLY))
        self.assertEqual(reply[3], after[2] + 1)
        self.assertIn(b"after", reply[5])
        self.assertNotIn(b"before", reply[5])

    def last_body(self):
        """Of the last frame in the log's only segment."""
        name, = (name for name in os.listdir(self.node.log_dir()) if name == f"{1:020}.seg")
        with open(os.path.join(self.node.log_dir(), name), "rb") as file:
            data = file.read()
        at, body = SEGMENT_HEADER, b""
        while data[at:at + 4] == b"SHFR":
            end = at + FRAME_HEADER + int.from_bytes(data[at + 8:at + 12], "little")
            body, at = data[at + FRAME_HEADER:end], end
        return body

    def test_entries_are_stored_as_the_client_packed_them(self):
        """Nobody on the way packs them anew: that would shorten the integers and lengths."""
        for caller, text in ((self.local(), "by ipc"), (self.over_tcp(), "by tcp"), (self.local("wal"), "to walsvc")):
            entries = [[0, "s", text.encode()], [0, "", b""]]
            kind, body = caller.ask(APPEND, append_of(entries))
            self.assertEqual((kind, body[3]), (APPEND_REPLY, 2), body)
            self.assertEqual(self.last_body(), pack(entries))
            read = self.node.ctl("--format", "raw", "read", "--from", str(body[2])).stdout
            self.assertEqual(read, text.encode() + b"\n\n")

    def test_walsvc_s_link_is_named_to_local_clients_only(self):
        kind, body = self.local().ask(HELLO, {1: True})
        self.assertEqual((kind, body[6]), (HELLO_REPLY, f"ipc://{self.node.run}/wal"))
        for caller, says_local in ((self.over_tcp(), True), (self.over_tcp(), False), (self.local(), False)):
            kind, body = caller.ask(HELLO, {1: True} if says_local else {})
            self.assertEqual((kind, body[3], body.get(6, "")), (HELLO_REPLY, "n1", ""))

    def test_walsvc_serves_no_reads(self):
        for kind, body in ((READ, {2: 1, 3: 1000, 4: 1, 5: 0}), (HELLO, {}), (STATUS, {})):
            kind, body = self.local("wal").ask(kind, body)
            self.assertEqual((kind, body[1]), (ERROR, BAD_REQUEST))

    def test_a_read_at_the_end_waits_for_the_next_append_and_no_longer(self):
        """The read may wait for 60 s; the connection's patience is 30 s."""
        for reader in (self.local(), self.over_tcp()):
            lsn = self.node.json("append", "before")["last"]["lsn"]
            read = reader.send(READ, {2: lsn + 1, 3: 1 << 20, 4: 1, 5: 60000})
            status = reader.send(STATUS, {})
            self.assertEqual(reader.take()[:2], [status, STATUS_REPLY])  # the read is in querysvc, and waits
            self.assertEqual(self.node.json("append", "after")["last"]["lsn"], lsn + 1)
            number, kind, body = reader.take()
            self.assertEqual((number, kind, body[3]), (read, READ_REPLY, lsn + 2))
            self.assertIn(b"after", body[5])


if __name__ == "__main__":
    unittest.main()
