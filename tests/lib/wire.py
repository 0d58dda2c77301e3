"""nng's wire formats, spoken by hand: a greeting of 8 bytes each way, then frames (tcp: 8 bytes of length; ipc: a byte 1
before them). A request of REQ begins with 4 bytes of number."""
import select
import socket
import struct

PUSH, REQ = 0x50, 0x30
ERROR = 3  # type of the message


class Wire:
    """One connection, from its first byte. address: the path of a unix socket, or (host, port)."""

    def __init__(self, address, protocol, greet=True, timeout=30):
        self.is_ipc = isinstance(address, str)
        self.protocol = protocol
        self.number = 0
        self.socket = socket.socket(socket.AF_UNIX if self.is_ipc else socket.AF_INET)
        # A unix socket's full backlog makes connect wait only when the socket blocks.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", timeout, 0))
        try:
            self.socket.connect(address)
            self.socket.settimeout(timeout)
            if greet:
                self.socket.sendall(greeting(protocol))
                self.take(8)
        except OSError:
            self.close()
            raise

    def frame(self, length):
        return (b"\1" if self.is_ipc else b"") + struct.pack(">Q", length)

    def send(self, message):
        if self.protocol == REQ:
            self.number += 1
            message = struct.pack(">I", 0x80000000 | self.number) + message
        self.socket.sendall(self.frame(len(message)) + message)

    def take(self, length):
        data = b""
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            if not part:
                raise ConnectionError("closed by the far end")
            data += part
        return data

    def is_readable(self):
        return bool(select.select([self.socket], [], [], 0)[0])

    def receive(self):
        """The next message, without its number."""
        head = self.take(9 if self.is_ipc else 8)
        message = self.take(struct.unpack(">Q", head[-8:])[0])
        return message[4:] if self.protocol == REQ else message

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


def greeting(protocol):
    return struct.pack(">4sHH", b"\0SP\0", protocol, 0)


def message_type(message):
    """Of [1, type, ...]; only our own daemons' messages are that regular."""
    assert message[:2] == b"\x97\x01" and message[2] < 0x80, message[:16]
    return message[2]
