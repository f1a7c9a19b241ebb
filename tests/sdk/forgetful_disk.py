"""A disk that forgets or tears what was not synced when the power is cut, under a real profile."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest
from xrec_sdk import profile as profiles
from xrec_sdk import store
from xrec_sdk.profile import Profile

SECTOR = 512


class Disk(apsw.VFS):
    """Writes through to real files, and keeps what was written since each file was last synced."""

    def __init__(self):
        self.synced: dict[str, bytearray] = {}
        self.pending: dict[str, list[tuple[int, bytes] | int]] = {}
        super().__init__("forgetful", "")

    def xOpen(self, name, flags):
        return File(self, name, flags)

    def xDelete(self, filename, syncdir):
        super().xDelete(filename, syncdir)
        self.synced.pop(filename, None)
        self.pending.pop(filename, None)

    def cut(self, luck, folder):
        """Write into ``folder`` what the disk may hold after a power cut: of what was not synced, any part."""
        for path, synced in self.synced.items():  # deletions are taken as done
            content = bytearray(synced)
            for op in self.pending[path]:
                if luck.random() < 0.5:
                    continue
                if isinstance(op, int):
                    del content[op:]
                    continue
                offset, data = op
                if luck.random() < 0.3:
                    data = data[: luck.randrange(0, len(data), SECTOR) if len(data) > SECTOR else 0]
                content[len(content) :] = bytes(max(0, offset + len(data) - len(content)))
                content[offset : offset + len(data)] = data
            (folder / path.rpartition("/")[2]).write_bytes(content)


class File(apsw.VFSFile):
    """One file of the forgetful disk."""

    def __init__(self, disk, name, flags):
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self.disk = disk
        super().__init__("", name, flags)
        disk.synced.setdefault(self.path, bytearray())
        disk.pending.setdefault(self.path, [])

    def xWrite(self, data, offset):
        self.disk.pending[self.path].append((offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size):
        self.disk.pending[self.path].append(size)
        super().xTruncate(size)

    def xSync(self, flags):
        super().xSync(flags)
        content = self.disk.synced[self.path]
        for op in self.disk.pending[self.path]:
            if isinstance(op, int):
                del content[op:]
                continue
            offset, data = op
            content[len(content) :] = bytes(max(0, offset + len(data) - len(content)))
            content[offset : offset + len(data)] = data
        self.disk.pending[self.path] = []


class ForgetfulEngine:
    """SQLite on the forgetful disk."""

    name, version, errors = "apsw", apsw.sqlite_lib_version(), (apsw.Error,)

    def connect(self, path, busy_timeout_s):
        return apsw.Connection(path, vfs="forgetful")


@dataclass(frozen=True)
class Outcome:
    """What a power cut took: of the ids that `record()` returned, those lost, and those lost from before a barrier."""

    kept: int
    lost: int
    lost_before_barrier: int
    seconds_at_risk: float


def cut_power(disk: Disk, folder: Path, seed: int, durability: str) -> Outcome:
    """Record over minutes of a simulated clock, cut the power, and open what the disk holds; seeded.

    AssertionError where the file is damaged, a word of consent is lost or what was erased is back.
    """
    luck, clock_s = random.Random(seed), 1_000.0
    made, found = folder / f"{seed}", folder / f"{seed}-after"
    made.mkdir()
    found.mkdir()
    disk.synced.clear()
    disk.pending.clear()
    kept: list[str] = []
    barrier, barrier_s = 0, clock_s
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiles, "_engine", lambda _: ForgetfulEngine())
        patch.setattr(store, "time", SimpleNamespace(monotonic=lambda: clock_s, sleep=time.sleep))
        profile = Profile(made / "p.db", durability=durability)
        profile.set_consent("personalise", True)
        for number in range(luck.randint(1, 60)):
            clock_s += luck.choice((0.0, 0.01, 0.2, 5.0))
            kept.append(profile.record("view", f"i{number}", "phone", number))
            if not disk.pending[f"{made / 'p.db'}-wal"]:
                barrier, barrier_s = len(kept), clock_s
        if luck.random() < 0.3:
            profile.store.checkpoint("PASSIVE", 0.0)
        if is_forgotten := luck.random() < 0.3:
            assert profile.forget() == len(kept)
            kept, barrier = [], 0
        if is_withdrawn := luck.random() < 0.5:
            profile.set_consent("personalise", False)
        disk.cut(luck, found)
        profile.close()
    after = Profile(found / "p.db")
    held = {event.id for event in after.events()}
    assert after.store.connection().execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert after.consent()["personalise"] is not is_withdrawn, f"seed {seed}: a word of consent is lost"
    assert not (is_forgotten and held), f"seed {seed}: erased events are back"
    after.close()
    at_risk_s = clock_s - barrier_s if len(kept) > barrier else 0.0
    return Outcome(len(kept), len(set(kept) - held), len(set(kept[:barrier]) - held), at_risk_s)
