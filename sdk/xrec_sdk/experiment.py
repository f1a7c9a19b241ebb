"""Experiments: the arm that a user is in, decided on the device, and what the id of a list says of its origin."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import NamedTuple

from xrec_sdk.errors import UsageError
from xrec_sdk.eventid import new_event_id

NAME = re.compile("[A-Za-z0-9_-]{1,64}")


class Arm(NamedTuple):
    """One way that an experiment compares."""

    experiment: str
    name: str


def assign(experiment: str, unit: str, arms: Mapping[str, float]) -> Arm:
    """Return the arm of a unit; the same for the same arguments, on every device and in every language.

    ``unit`` is a text that stays as it is for whom the experiment should stay as it is: the app's id of the user, the
    same on all their devices, or of the installation. It is hashed here and leaves the device nowhere. ``arms`` are
    names and shares, in order: the first 8 bytes of SHA-256 of ``xrec-arm NUL experiment NUL unit``, as a fraction,
    fall into one share.

    Raises UsageError ``usage.arm`` for a name that is not 1 to 64 of ``A-Z a-z 0-9 _ -``, or shares of no sum.
    """
    for name in (experiment, *arms):
        _check_name(name)
    shares = list(arms.values())
    if not all(isinstance(share, (int, float)) and 0 <= share < math.inf for share in shares) or not sum(shares):
        raise UsageError("usage.arm", f"the shares are {shares}; expected numbers from 0, one of them above it")
    digest = hashlib.sha256(f"xrec-arm\0{experiment}\0{unit}".encode()).digest()
    # Added one after the other, in every language: Python 3.12's sum() rounds once.
    left = int.from_bytes(digest[:8], "big") / (1 << 64) * reduce(add, shares)
    for name, share in arms.items():
        if left < share:
            return Arm(experiment, name)
        left -= share
    return Arm(experiment, [name for name, share in arms.items() if share][-1])  # What rounding left is the last one's.


def list_id(release: int, arm: Arm | None) -> str:
    """Return a new id of a list, which says the bundle's release and the arm: ``UUIDv7.3`` or ``UUIDv7.3.rank=new``."""
    if arm is None:
        return f"{new_event_id()}.{release}"
    for name in arm:
        _check_name(name)
    return f"{new_event_id()}.{release}.{arm.experiment}={arm.name}"


def origin_of(recommendation_id: str) -> tuple[int | None, Arm | None]:
    """Return the bundle's release and the arm that the id of a list says; None for what it does not."""
    _, _, rest = recommendation_id.partition(".")
    release, _, said = rest.partition(".")
    experiment, _, name = said.partition("=")
    arm = Arm(experiment, name) if NAME.fullmatch(experiment) and NAME.fullmatch(name) else None
    return (int(release) if re.fullmatch("[0-9]{1,16}", release) else None), arm


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsageError("usage.arm", f"the name is {name!r}; expected 1 to 64 of A-Z a-z 0-9 _ -")
