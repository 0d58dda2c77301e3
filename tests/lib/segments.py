"""Segments of a node that has stopped, cut into what one node sends another."""
import os

SEGMENT_HEADER, FRAME_HEADER = 64, 88


def integer(data, at, size):
    return int.from_bytes(data[at:at + size], "little")


class Segment:
    """Its bytes up to the last frame, and where frames begin."""

    def __init__(self, path):
        self.name = os.path.basename(path)
        with open(path, "rb") as file:
            data = file.read()
        self.base, self.position = integer(data, 32, 8), integer(data, 40, 8)
        self.starts, at = [], SEGMENT_HEADER
        while data[at:at + 4] == b"SHFR":
            self.starts.append(at)
            at += FRAME_HEADER + integer(data, at + 8, 4)
        self.data = data[:at]
        self.end = self.position + at

    def pieces(self, most):
        """(position, bytes) of whole frames, the header before the first one."""
        begin = 0
        for start in self.starts[1:] + [len(self.data)]:
            if start - begin >= most or start == len(self.data):
                yield self.position + begin, self.data[begin:start]
                begin = start


def read_segments(directory):
    """All of a log's folder, in order."""
    names = sorted(name for name in os.listdir(directory) if name.endswith(".seg"))
    return [Segment(os.path.join(directory, name)) for name in names]
