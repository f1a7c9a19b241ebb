"""How many blocks of 128 items an exact scan could leave out, if bounds told it which hold none of the ten best.

    python benchmarks/block_bounds.py run --items 1000000

A block may be left out where no score in it can reach the tenth best, by the ball around its items (Cauchy-Schwarz) or
by their least and largest numbers along each axis (the bound of a box). The tenth best score is taken as known from the
start: no scan can leave out more. The users are a trained run's; the items are its own, and a larger catalogue drawn
with their mean and covariance. Items stand as they are (by popularity), or as a tree of median cuts along the axis of
the largest variance puts near ones together. docs/decisions/0011-no-pruning.md says what follows.
"""

# N items, D width, nb blocks of 128 items

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from made_shop import K
from numpy.typing import NDArray
from xrec_export import reference
from xrec_export.from_run import load

BLOCK = 128
Rows = NDArray[np.float32]


def by_median_cuts(rows: Rows) -> NDArray[np.int64]:
    """Return an order of the rows (N,) in which each 128 in turn lie near each other."""
    parts, done = [np.arange(len(rows))], []
    while parts:
        part = parts.pop()
        if len(part) <= BLOCK:
            done.append(part)
            continue
        axis = int(rows[part].var(axis=0).argmax())
        # The cut lies at a whole number of blocks, so that no block holds the ends of two parts.
        half = BLOCK * max(1, round(len(part) / BLOCK / 2))
        sorted_part = part[np.argpartition(rows[part, axis], half - 1)]
        parts += [sorted_part[:half], sorted_part[half:]]
    return np.concatenate(done)


def ball(blocks: Rows, user: Rows) -> Rows:
    """Return the bound of each block (nb, 128, D) by its centre and radius."""
    centres = blocks.mean(axis=1)
    radii = np.linalg.norm(blocks - centres[:, None], axis=2).max(axis=1)
    return centres @ user + radii * np.linalg.norm(user)


def box(blocks: Rows, user: Rows) -> Rows:
    """Return the bound of each block by the least and largest numbers along each axis."""
    return blocks.max(axis=1) @ np.maximum(user, 0) + blocks.min(axis=1) @ np.minimum(user, 0)


def norms(blocks: Rows, user: Rows) -> Rows:
    """Return the bound of each block by the largest length of its items."""
    return np.linalg.norm(blocks, axis=2).max(axis=1) * np.linalg.norm(user)


BOUNDS: dict[str, Callable[[Rows, Rows], Rows]] = {"length": norms, "ball": ball, "box": box}


def needed(rows: Rows, users: list[Rows], bound: Callable[[Rows, Rows], Rows]) -> float:
    """Return the mean share of blocks that reach each user's tenth best score."""
    whole = len(rows) // BLOCK * BLOCK
    blocks, shares = rows[:whole].reshape(-1, BLOCK, rows.shape[1]), []
    for user in users:
        tenth = np.partition(rows @ user, len(rows) - K)[len(rows) - K]
        shares.append(float((bound(blocks, user) >= tenth).mean()))
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=20)
    given = parser.parse_args()
    model, cases = load(given.run, given.users)
    users = [reference.encode(model.encoder, model.item_table, case.history) for case in cases]
    table, random = model.item_table, np.random.default_rng(0)
    axes = np.linalg.cholesky(np.cov(table.T) + 1e-9 * np.eye(table.shape[1])).astype(np.float32)
    drawn = random.normal(size=(given.items, table.shape[1])).astype(np.float32) @ axes.T + table.mean(axis=0)
    print(f"{len(users)} users; the share of blocks that must be read")
    for name, rows in {f"{len(table):,} items of the run": table, f"{len(drawn):,} drawn like them": drawn}.items():
        orders = {"as they are": rows, "by median cuts": rows[by_median_cuts(rows)]}
        for order, ordered in orders.items():
            shares = ", ".join(f"{bound} {needed(ordered, users, of):.3f}" for bound, of in BOUNDS.items())
            print(f"  {name}, {order}: {shares}", flush=True)


if __name__ == "__main__":
    main()
