"""The settings of one training run, with their bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from xrec_sdk.errors import UsageError

Split = Literal["time", "leave-one-out"]
InitialRows = Literal["random", "svd"]
Loss = Literal["softmax", "gbce"]
Schedule = Literal["constant", "cosine"]
Precision = Literal["float32", "bf16"]
LearnsUntil = Literal["validation", "test", "end"]
Weights = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class FitConfig:
    """What ``xrec-train fit`` does; saved in the run as config.json.

    ``sampled_above``: with more items than this the loss is a softmax over ``samples`` shared negatives (see loss.py).
    The full loss ranks better and grows with the catalogue: benchmarks/results/loss_cost.txt has both figures.
    ``loss``: "gbce" is learned over ``samples`` even negatives, with ``gbce_calibration`` 0 to 1 (loss.py).
    ``label_smoothing``: this share of each target goes to all items evenly (loss.py); for the softmax alone.
    ``schedule``: "cosine" lets the learning rate fall to 0 over ``max_epochs``, after ``warmup_steps`` (schedule.py).
    ``precision``: "bf16" runs the encoder's products of matrices in bfloat16 (``torch.autocast``); the loss, weights
    and what is saved stay float32. Training is on the CPU; a GPU was not tried.
    ``auxiliary_targets``: further events that are learned as targets, each with its weight in the loss (a target's own
    is 1), as ``view:0.1,cart:0.3``; evaluation asks for ``targets`` alone.
    ``horizon_days``: 0 learns the next event at each position; else ``prefixes`` times an epoch each user is cut at a
    random time and all targets of that many days after it are learned from what was before. This suits baskets, whose
    items have one time stamp and no order.
    ``burn_in_days``: targets of the log's first days are not learned; there, nearly all that a user buys looks new.
    ``distinct_items``: an item stands once in the history, at its last event, so that habits leave room for the rest.
    ``trend_half_life_days``: of what sells now, whose weight in the scores is chosen on validation (trend.py).
    ``initial_rows``: "svd" starts from the leading singular vectors of the user-item matrix (PureSVD: Cremonesi, Koren
    and Turrin, RecSys 2010), a good start where users are few.
    ``neighbours``: an item's row shares what so many of the items next to it in histories learn (neighbours.py); 0 for
    none. With more items than ``sampled_above`` none is shared: that would cost more than the rest of a step.
    ``filter_seen``: the bundle leaves out seen items unless asked otherwise, and so does the leave-one-out split.
    ``averaging``: decay of the moving average of the weights, which is what is validated and kept; 0 for the weights
    of the last step (averaging.py).
    ``content``: an item's attributes and text shape its row too (content.py); false leaves it to id and category.
    ``text_vectors``: an item's text is the vector that text_vectors.parquet of the prepared folder has of it
    (text_vectors.py), not its hashed n-grams.
    ``unit_rows``: all items' rows have one length, which is learned, so that a score is a cosine (model.py).
    ``id_dropout``: the share of items that a training step knows by their content alone (model.py).
    ``new_items``: items with less than ``min_count`` events are in the catalogue too, known by their content alone.
    ``cold_share``: this share of the items is kept out of training, to measure how new items rank (cold.py).
    ``queries``: searches are a part of the history too, read as the hashed n-grams of their queries (xrec_sdk.query).
    ``learns_until``: where in the log training ends, the validation period or where xrec-train refit says (refit.py).
    ``learns_repeats``: false leaves out of the loss the targets that the user had before; the repeat rule ranks them.
    """

    targets: tuple[str, ...]
    auxiliary_targets: Weights = ()
    split: Split = "time"
    test_days: float = 28.0
    validation_days: float = 28.0
    min_count: int = 5
    half_life_days: float = 30.0
    trend_half_life_days: float = 7.0
    max_history: int = 50
    distinct_items: bool = False
    encoder: str = "lowpass"
    width: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.5
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    precision: Precision = "float32"
    batch_tokens: int = 1024
    max_epochs: int = 100
    patience: int = 10
    quantized_epochs: int = 3
    sampled_above: int = 25_000
    samples: int = 2048
    loss: Loss = "softmax"
    gbce_calibration: float = 0.75
    label_smoothing: float = 0.0
    horizon_days: float = 0.0
    prefixes: int = 4
    burn_in_days: float = 0.0
    initial_rows: InitialRows = "random"
    neighbours: int = 20
    averaging: float = 0.995
    learns_repeats: bool = True
    filter_seen: bool = False
    content: bool = True
    text_vectors: bool = False
    unit_rows: bool = False
    id_dropout: float = 0.0
    new_items: bool = False
    cold_share: float = 0.0
    queries: bool = False
    learns_until: LearnsUntil = "validation"
    seed: int = 1

    def __post_init__(self) -> None:
        bounds: dict[str, tuple[float, float]] = {
            "min_count": (1, 1e9),
            "max_history": (2, 1000),
            "width": (4, 1024),
            "layers": (1, 16),
            "heads": (1, 32),
            "dropout": (0, 0.95),
            "learning_rate": (1e-6, 1),
            "batch_tokens": (64, 1e6),
            "max_epochs": (1, 1e5),
            "patience": (1, 1e5),
            "quantized_epochs": (0, 1000),
            "samples": (1, 1e6),
            "neighbours": (0, 1000),
            "test_days": (0.01, 1e5),
            "validation_days": (0.01, 1e5),
            "half_life_days": (0.01, 1e5),
            "trend_half_life_days": (0.01, 1e5),
            "horizon_days": (0, 1e5),
            "prefixes": (1, 1000),
            "burn_in_days": (0, 1e5),
            "averaging": (0, 0.99999),
            "id_dropout": (0, 0.95),
            "cold_share": (0, 0.9),
            "gbce_calibration": (0, 1),
            "label_smoothing": (0, 0.9),
            "warmup_steps": (0, 1e6),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError("usage.out_of_bounds", f"{name} is {value}; expected {low:g} to {high:g}")
        if self.width % self.heads:
            raise UsageError("usage.out_of_bounds", f"width {self.width} is not a multiple of heads {self.heads}")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise UsageError("usage.setting", f"{name} is {value!r}; expected {' or '.join(choices)}")
        if self.label_smoothing and self.loss != "softmax":
            raise UsageError(
                "usage.setting",
                f"label_smoothing is for loss=softmax, and loss is {self.loss!r}; leave one of them out",
            )
        for name, weight in self.auxiliary_targets:
            if not 0 < weight <= 1:
                raise UsageError("usage.out_of_bounds", f"the weight of {name} is {weight}; expected more than 0, to 1")
        if not self.targets:
            raise UsageError("usage.no_target", "no target event; name at least one, for example --target purchase")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)


def from_json(values: dict[str, Any]) -> FitConfig:
    """Read back what ``to_json`` gave."""
    weights = tuple((name, weight) for name, weight in values.get("auxiliary_targets", ()))
    return FitConfig(**{**values, "targets": tuple(values["targets"]), "auxiliary_targets": weights})


def parse(values: dict[str, Any], settings: Sequence[str]) -> FitConfig:
    """Make a configuration from values and ``NAME=VALUE`` texts; raises UsageError ``usage.setting``."""
    kinds: dict[str, Callable[[str], Any]] = {
        field.name: _KINDS[str(field.type)] for field in fields(FitConfig) if str(field.type) in _KINDS
    }
    for text in settings:
        name, _, value = text.partition("=")
        if name not in kinds:
            raise UsageError("usage.setting", f"no setting is named {name!r}; there are {', '.join(sorted(kinds))}")
        try:
            values[name] = kinds[name](value)
        except (ValueError, KeyError) as cause:
            raise UsageError("usage.setting", f"{name} is {value!r}; expected {_expected(name)}") from cause
    return FitConfig(**values)


_CHOICES: dict[str, tuple[str, ...]] = {
    "initial_rows": get_args(InitialRows),
    "learns_until": get_args(LearnsUntil),
    "loss": get_args(Loss),
    "precision": get_args(Precision),
    "schedule": get_args(Schedule),
}
_BOOLS = {"true": True, "false": False}


def _weights(text: str) -> Weights:
    pairs = (part.rpartition(":") for part in text.split(",") if part)
    return tuple((name, float(weight)) for name, _, weight in pairs)


_KINDS: dict[str, Callable[[str], Any]] = {
    "InitialRows": str,
    "LearnsUntil": str,
    "Loss": str,
    "Precision": str,
    "Schedule": str,
    "Weights": _weights,
    "int": int,
    "float": float,
    "str": str,
    "bool": lambda text: _BOOLS[text.lower()],
}


def _expected(name: str) -> str:
    return {field.name: str(field.type) for field in fields(FitConfig)}[name]
