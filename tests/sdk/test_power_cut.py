"""What a power cut takes: a file system that forgets or tears what was not synced, under a real profile."""

from __future__ import annotations

import random

import pytest
from xrec_sdk import profile as profiles
from xrec_sdk.errors import ProfileError
from xrec_sdk.profile import Profile
from xrec_sdk.store_sqlite import SqliteEngine

apsw = pytest.importorskip("apsw", reason="the extra encrypted (apsw-sqlite3mc) is not installed")
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


@pytest.mark.parametrize("durability", ["power", "process"])
def test_what_returned_survives_a_power_cut_where_that_was_asked(tmp_path, monkeypatch, durability):
    disk, lost, cuts = Disk(), 0, 16
    for seed in range(cuts):
        luck, made, found = random.Random(seed), tmp_path / f"{seed}", tmp_path / f"{seed}-after"
        made.mkdir()
        found.mkdir()
        disk.synced.clear()
        disk.pending.clear()
        with monkeypatch.context() as patch:
            patch.setattr(profiles, "_engine", lambda _: ForgetfulEngine())
            profile = Profile(made / "p.db", durability=durability)
            profile.set_consent("personalise", True)
            kept = [profile.record("view", f"i{number}", "phone", number) for number in range(luck.randint(1, 60))]
            if luck.random() < 0.3:
                profile.store.checkpoint("PASSIVE", 0.0)
            if is_forgotten := luck.random() < 0.3:
                assert profile.forget() == len(kept)
                kept = []
            if is_withdrawn := luck.random() < 0.5:
                profile.set_consent("personalise", False)
            disk.cut(luck, found)
            profile.close()
        assert isinstance(profiles._engine(None), SqliteEngine)
        try:
            after = Profile(found / "p.db")
        except ProfileError as failure:
            pytest.fail(f"seed {seed}: {failure.code}")
        held = {event.id for event in after.events()}
        assert after.store.connection().execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert after.consent()["personalise"] is not is_withdrawn, f"seed {seed}: a word of consent is lost"
        assert not (is_forgotten and held), f"seed {seed}: erased events are back"
        after.close()
        lost += len(set(kept) - held)
    if durability == "power":
        assert lost == 0
    else:
        assert lost > 0  # the disk does forget: of the last second only, and consent and erasures never
    disk.unregister()
