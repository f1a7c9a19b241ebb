"""The run folder: what training wrote, and how evaluation and export read it back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from xrec_sdk.errors import DataError, UsageError
from xrec_sdk.filelock import try_lock
from xrec_sdk.history import History, RepeatRule, Vocabulary

from xrec_trainer import content, dataset, text_vectors
from xrec_trainer.config import FitConfig, from_json
from xrec_trainer.content import Features
from xrec_trainer.dataset import Catalogue, Log, encode_case
from xrec_trainer.model import Model
from xrec_trainer.splits import Study, make_study


@dataclass(frozen=True)
class Run:
    """A trained model with the data that it was trained on, ready to be evaluated or exported."""

    folder: Path
    config: FitConfig
    study: Study
    model: Model
    repeat: RepeatRule | None
    facts: dict[str, Any]

    @property
    def validation_ndcg(self) -> float:
        """The best NDCG@10 that training reached on validation."""
        return max(float(line["validation_ndcg@10"]) for line in self.facts["curve"])

    @property
    def vocabulary(self) -> Vocabulary:
        """Events, devices and gap buckets that the model knows."""
        return self.study.log.vocabulary

    @property
    def catalogue(self) -> Catalogue:
        """The items in row order."""
        return self.study.catalogue

    @property
    def log(self) -> Log:
        """All events in rows and codes."""
        return self.study.log

    @property
    def seen_events(self) -> tuple[str, ...]:
        """Event types that make an item "seen"."""
        return self.config.targets

    @property
    def filter_seen(self) -> bool:
        """Whether seen items are left out unless the app asks for them."""
        return self.config.filter_seen

    def parity_cases(self, limit: int) -> list[tuple[History, NDArray[np.int32], NDArray[np.int32]]]:
        """Return up to ``limit`` test cases, evenly chosen: history, right rows, rows to leave out."""
        cases = self.study.test[self.study.main_task]
        with_history = np.flatnonzero(np.diff(cases.history_offsets) > 0)
        chosen = with_history[np.linspace(0, len(with_history) - 1, min(limit, len(with_history))).astype(int)]
        result = []
        for case in chosen:
            history = cases.history(int(case))
            result.append((encode_case(self.log, history), cases.answers(int(case)), cases.left_out(self.log, case)))
        return result


def save_json(path: Path, values: Any) -> None:
    """Write a JSON file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def claim(path: Path, wanted: dict[str, Any], code: str, what: str) -> None:
    """Keep in ``path`` what its folder is for; raise UsageError ``code`` where it is already for something else."""
    wanted = json.loads(json.dumps(wanted))
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != wanted:
        raise UsageError(code, f"{path.parent} holds {what} ({path.name}); name another folder with --out")
    save_json(path, wanted)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder inside the block; UsageError ``usage.out_busy`` where one works there."""
    folder.mkdir(parents=True, exist_ok=True)
    with try_lock(folder / "lock") as is_free:
        if not is_free:
            raise UsageError("usage.out_busy", f"another process works in {folder}; wait, or name another with --out")
        yield


def save_tensors(path: Path, values: Any) -> None:
    """Write a torch file whole or not at all."""
    part = path.with_name(path.name + ".part")
    torch.save(values, part)
    os.replace(part, path)


class Outcome(NamedTuple):
    """What run.json holds: settings, the path of the prepared data, the repeat rule and what training found."""

    config: FitConfig
    data: Path
    repeat: RepeatRule | None
    facts: dict[str, Any]


def read_outcome(folder: Path) -> Outcome:
    """Read run.json; raises DataError ``data.not_a_run`` where the folder has no finished run."""
    if not (folder / "model.pt").is_file() or not (folder / "run.json").is_file():
        raise DataError(
            "data.not_a_run", f"{folder} has no finished run; make one with: xrec-train fit DATA --out {folder}"
        )
    saved = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    repeat = RepeatRule(**{**saved["repeat"], "events": tuple(saved["repeat"]["events"])}) if saved["repeat"] else None
    return Outcome(from_json(saved["config"]), Path(saved["data"]), repeat, saved["facts"])


def load_run(folder: Path, data: Path | None = None, study: Study | None = None) -> Run:
    """Read a run folder; ``data`` replaces the path of the prepared data that the run remembers.

    ``study`` is what the run was trained on, where the caller has it already.

    Raises DataError ``data.not_a_run`` where the folder has no finished run.
    """
    config, known_data, repeat, facts = read_outcome(folder)
    data = data or known_data
    study = study or make_study(dataset.read(data, queries=config.queries), config)
    features = read_features(folder, data, study.catalogue, config)
    model = Model(config, study.log.vocabulary, features, study.catalogue.warm, study.log.queries)
    model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    model.is_quantized = True
    model.eval()
    return Run(folder, config, study, model, repeat, facts)


def read_features(folder: Path, data: Path, catalogue: Catalogue, config: FitConfig) -> Features:
    """Return what the item tower reads of a catalogue, as the run in ``folder`` learned to encode it."""
    features = content.encode(content.load(folder / "content.npz"), catalogue.entries)
    if not config.text_vectors:
        return features
    return replace(features, text=text_vectors.read(data, catalogue.ids))


def describe(config: FitConfig, data: Path, repeat: RepeatRule | None, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what run.json holds."""
    return {
        "format": 1,
        "config": config.to_json(),
        "data": str(data.resolve()),
        "repeat": asdict(repeat) if repeat else None,
        "facts": facts,
    }
