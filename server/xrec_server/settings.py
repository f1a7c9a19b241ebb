"""What the operator sets: one frozen dataclass, its bounds checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from xrec_sdk.sync import Limits

from xrec_server.errors import ServerError
from xrec_server.sqlite import Synchronous


@dataclass(frozen=True)
class Settings:
    """One server. ``database`` and ``ledger`` are paths of SQLite files, or PostgreSQL URLs."""

    database: str
    ledger: str
    keys: Path
    secret: Path
    audience: str
    issuer: str | None = None
    bundles: Path | None = None
    synchronous: Synchronous = "FULL"
    origins: tuple[str, ...] = ()
    events_per_minute: int = 6_000
    max_wait_s: int = 55
    polls_per_profile: int = 64
    retention_every_s: int = 3_600
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name in ("events_per_minute", "polls_per_profile", "retention_every_s"):
            if getattr(self, name) < 1:
                raise ServerError("server.setting", f"{name} is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.max_wait_s <= 60:
            raise ServerError("server.setting", f"max_wait_s is {self.max_wait_s}; expected 0 to 60")
        if not self.audience:
            raise ServerError("server.setting", "the audience is empty; expected what tokens name in aud")
