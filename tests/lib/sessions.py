"""Histories of sessions that write and read keys, and what they must never see.

A session does one thing after the other, on changing nodes. A write is a frame of puts, deletes and additions; it ends ok (with its log and LSN),
failed (refused: it is nowhere) or unknown (it may be there, and may have come about later). A read shows of each key that it
asked for a version, or that it has none. `frames` is what became of it all: every frame that the logs hold in the end.

What a session may see next follows from what it has seen: of each key it knows a version below which nothing may be shown to
it (its floor), and why:

  read your writes      it has written that
  monotonic reads       it has read that
  whole frames          it has seen something else of that frame
  monotonic writes      it has seen what the writer of that wrote later
  writes follow reads   it has seen what somebody wrote who had seen that

A key that has nothing is as good as its lowest delete that is not below the floor."""
import bisect

OK, FAILED, UNKNOWN = "ok", "failed", "unknown"
OWN_WRITES, OWN_READS, FRAMES = "read your writes", "monotonic reads", "whole frames"
WRITES, FOLLOWS = "monotonic writes", "writes follow reads"
ACROSS = (WRITES, FOLLOWS)  # between sessions: cause before effect


class Frame:
    """written: {key: (version, value)} of its puts and deletes, value None of a delete; a version is (HLC, log, LSN), the last
    one of each key."""

    def __init__(self, log, lsn, written):
        self.log, self.lsn, self.written = log, lsn, written


class Write:
    """time: when it was begun. mark: what its frame is known by in the logs when it was not answered."""

    def __init__(self, session, time, node, mark=None, outcome=UNKNOWN, log=None, lsn=None):
        self.session, self.time, self.node, self.mark = session, time, node, mark
        self.outcome, self.log, self.lsn = outcome, log, lsn


class Read:
    """time: when it was answered. rows: {key: (version, value)}, or None of a key without a value. instant: all of it is of
    one instant."""

    def __init__(self, session, time, node, rows, instant=False):
        self.session, self.time, self.node, self.rows, self.instant = session, time, node, rows, instant


class Floor:
    """{key: (version, why)}"""

    def __init__(self, of=()):
        self.keys = dict(of)

    def raise_to(self, key, version, why):
        if key not in self.keys or self.keys[key][0] < version:
            self.keys[key] = version, why

    def adopt(self, other, reasons):
        """What another one had seen, for other reasons: {old: new}."""
        for key, (version, why) in other.keys.items():
            self.raise_to(key, version, reasons.get(why, why))

    def copy(self):
        return Floor(self.keys)


class Judge:
    """frames: all that are in the logs, in any order. marks: {mark: frame} of those that are known by one. across: cause comes
    before effect between sessions too."""

    def __init__(self, frames, marks, across):
        self.marks, self.across = marks, across
        self.places = {(frame.log, frame.lsn): frame for frame in frames}
        self.versions = {version: (key, value, frame) for frame in frames for key, (version, value) in frame.written.items()}
        self.deletes = {}
        for version, (key, value, _) in sorted(self.versions.items(), key=lambda item: item[0]):
            if value is None:
                self.deletes.setdefault(key, []).append(version)
        self.floors = {}  # of each session
        self.causes = {}  # of each frame: the floor of its session when it was written
        self.found = []

    def fault(self, why, step, text):
        self.found.append(f"{why}: session {step.session} on {step.node}: {text}")

    def frame_of(self, write):
        return self.places.get((write.log, write.lsn)) if write.outcome == OK else self.marks.get(write.mark)

    def lowest_delete(self, floor, key):
        """That is not below the floor; None: there is no floor, or no such delete."""
        if key not in floor.keys:
            return None
        deletes = self.deletes.get(key, [])
        at = bisect.bisect_left(deletes, floor.keys[key][0])
        return deletes[at] if at < len(deletes) else None

    def see(self, floor, key, row):
        """What follows from it for what is seen next."""
        if row is None:
            lowest = self.lowest_delete(floor, key)
            if lowest is not None:
                floor.raise_to(key, lowest, OWN_READS)
            return
        floor.raise_to(key, row[0], OWN_READS)
        if row[0] not in self.versions:
            return
        frame = self.versions[row[0]][2]
        for other, (version, _) in frame.written.items():
            floor.raise_to(other, version, FRAMES)
        if frame in self.causes:
            floor.adopt(self.causes[frame], {OWN_WRITES: WRITES, OWN_READS: FOLLOWS, FRAMES: FOLLOWS})

    def check_row(self, floor, read, key, row):
        if row is not None:
            known = self.versions.get(row[0])
            if known is None or known[:2] != (key, row[1]):
                self.fault("nobody wrote that", read, f"{key!r} is {row}")
                return
        if key not in floor.keys:
            return
        least, why = floor.keys[key]
        if row is not None and row[0] < least:
            self.fault(why, read, f"{key!r} is as of {row[0]}, below {least}")
        elif row is None and self.lowest_delete(floor, key) is None:
            self.fault(why, read, f"{key!r} is nothing, which it never was from {least} on")

    def judge_read(self, floor, read):
        known = floor
        if read.instant:
            known = floor.copy()
            for key, row in read.rows.items():
                self.see(known, key, row)
        for key, row in read.rows.items():
            self.check_row(known, read, key, row)
        for key, row in read.rows.items():
            self.see(floor, key, row)

    def judge_answered(self, floor, write, frame):
        for key, (version, _) in frame.written.items():
            if key in floor.keys and version <= floor.keys[key][0]:
                why = WRITES if floor.keys[key][1] == OWN_WRITES else FOLLOWS
                self.fault(why, write, f"{key!r} was written as {version}, not above {floor.keys[key][0]}")
            floor.raise_to(key, version, OWN_WRITES)

    def judge_write(self, floor, write):
        frame = self.frame_of(write)
        if frame is None and write.outcome == OK:
            self.fault("acknowledged and lost", write, f"LSN {write.lsn} of {write.log}")
        if frame is None:
            return
        if write.outcome == FAILED:
            self.fault("refused and done", write, str(write.mark))
        if self.across:
            self.causes[frame] = floor.copy()
        if write.outcome == OK:
            self.judge_answered(floor, write, frame)

    def judge(self, steps):
        """In the order of time, so that a frame's cause is known before anybody sees it."""
        for step in sorted(steps, key=lambda one: one.time):
            floor = self.floors.setdefault(step.session, Floor())
            if isinstance(step, Write):
                self.judge_write(floor, step)
            else:
                self.judge_read(floor, step)
        return self.found


def faults(steps, frames, marks=None, across=True):
    """All that is wrong, in words. steps: of all sessions."""
    return Judge(frames, marks or {}, across).judge(steps)
