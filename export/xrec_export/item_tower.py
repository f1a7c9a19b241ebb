"""Give items that were not in training a row, from what the run's item tower learned of content."""

# n items, D width

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from xrec_sdk.bundle import Bundle
from xrec_sdk.errors import DataError
from xrec_trainer import content
from xrec_trainer.model import Model
from xrec_trainer.rank import load_ranker
from xrec_trainer.run import Run, load_run


def load_tower(folder: Path, bundle: Bundle) -> Run:
    """Return the run that the bundle was made of.

    Raises DataError: ``data.run_differs`` where it is another, ``data.no_content`` where it learned nothing of content.
    """
    run = load_run(folder)
    facts = {name: value for name, value in run.facts.items() if name != "curve"}
    ids = run.catalogue.ids
    is_its_own = len(ids) <= len(bundle.ids) and all(bundle.ids.item_id(row) == ids[row] for row in range(len(ids)))
    has_ranker = load_ranker(run) is not None
    if (
        has_ranker != (bundle.manifest.ranker is not None)
        or not is_its_own
        or json.loads(json.dumps(facts)) != bundle.manifest.model
    ):
        raise DataError(
            "data.run_differs", f"{bundle.manifest.name} was not made of {folder}; name its own run in --run"
        )
    if not any(bool(weights.any()) for weights in (run.model.token_rows, run.model.text_map)):
        raise DataError(
            "data.no_content",
            f"{folder} learned nothing of the items' content, so no new item can have a row; give items a title, "
            "category or attributes and fit again with --setting content=true",
        )
    for name, why in (
        ("text_vectors", "texts are vectors from elsewhere, which new entries do not have"),
        ("unit_rows", "a row's length is that of all others, so no content can be added to it"),
    ):
        if getattr(run.config, name):
            raise DataError(
                "data.no_content",
                f"{folder} was trained with {name}=true: {why}; train again on the new catalogue, or without it",
            )
    return run


@torch.no_grad()
def content_rows(run: Run, entries: Sequence[Mapping[str, object]]) -> NDArray[np.float32]:
    """Return what the tower says of entries from their content alone, (n, D); zero where it knows nothing of it."""
    if not entries:
        return np.zeros((0, run.config.width), dtype=np.float32)
    features = content.encode(content.load(run.folder / "content.npz"), entries)
    tower = Model(run.config, run.vocabulary, features, warm=1)
    tower.token_rows, tower.text_map = run.model.token_rows, run.model.text_map
    return tower.content_rows().numpy().astype(np.float32)
