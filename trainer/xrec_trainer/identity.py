"""Resolve which account each anonymous id belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xrec_sdk.errors import DataError


@dataclass(frozen=True)
class Identity:
    """The account of each anonymous id; ``ambiguous`` ids had several accounts and are merged into none."""

    account_of: dict[str, str]
    ambiguous: int


def resolve(pairs: Iterable[tuple[str, str]]) -> Identity:
    """Follow (anonymous_id, user_id) pairs to their last account, through other anonymous ids.

    An id with several accounts is a shared device and stays apart: merging would show one person what another did.
    Raises DataError ``data.identity_cycle`` where ids lead back to themselves.
    """
    direct: dict[str, str] = {}
    shared: set[str] = set()
    for anonymous_id, user_id in pairs:
        if anonymous_id == user_id:
            continue
        if direct.setdefault(anonymous_id, user_id) != user_id:
            shared.add(anonymous_id)
    for anonymous_id in shared:
        del direct[anonymous_id]
    account_of: dict[str, str] = {}
    for start in direct:
        path = [start]
        on_path = {start}
        while path[-1] in direct and path[-1] not in account_of:
            step = direct[path[-1]]
            if step in on_path:
                raise DataError(
                    "data.identity_cycle", f"the identity file leads from {step!r} back to itself; correct it"
                )
            path.append(step)
            on_path.add(step)
        last = account_of.get(path[-1], path[-1])
        for passed in path[:-1]:
            account_of[passed] = last
    return Identity(account_of, len(shared))
