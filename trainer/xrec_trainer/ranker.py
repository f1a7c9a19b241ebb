"""The ranker: a small network from a user's and an item's features to the probability of a target event.

``z = Wx + b, a = relu(z), y = sigmoid(wa + c)``, learned by binary cross entropy or squared error, then calibrated on
other examples (calibration.py).
"""

# U users, I items, n examples, B examples of a batch, F features of the user, G of the item, H hidden units

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from xrec_sdk.errors import DataError, UsageError

Shape = Literal["plain", "two-branch"]
RankerLoss = Literal["bce", "mse"]
EVALUATED_AT_A_TIME = 65_536


@dataclass(frozen=True)
class RankerConfig:
    """What ``xrec-train rank`` does; saved in the run's ranker.json.

    ``horizon_days``: the probability is of a target event within that many days; 0 is a quarter of the validation
    period, of which the first half is learned from and the second calibrates. ``moments``: how many times in each
    period users are asked, each of them the same number of times, at random. ``depth``: how many of the best items are
    examples, with and without those that the user had. ``hidden``: hidden units, of "two-branch" in each branch.
    ``vector_penalty``: what the squares of the weights of user vectors and item rows cost; those of a few thousand
    users are soon known by heart, with what each bought and what sold that week.
    """

    shape: Shape = "plain"
    loss: RankerLoss = "bce"
    horizon_days: float = 0.0
    moments: int = 5000
    depth: int = 20
    hidden: int = 32
    vector_penalty: float = 0.01
    learning_rate: float = 1e-3
    batch: int = 1024
    max_epochs: int = 30
    patience: int = 2
    seed: int = 1

    def __post_init__(self) -> None:
        bounds: dict[str, tuple[float, float]] = {
            "horizon_days": (0, 1e5),
            "moments": (1, 1e7),
            "depth": (1, 10_000),
            "hidden": (1, 1024),
            "vector_penalty": (0, 1e3),
            "learning_rate": (1e-6, 1),
            "batch": (1, 1e6),
            "max_epochs": (1, 1e5),
            "patience": (1, 1e5),
        }
        for name, (low, high) in bounds.items():
            found = getattr(self, name)
            if not low <= found <= high:
                raise UsageError("usage.out_of_bounds", f"{name} is {found}; expected {low:g} to {high:g}")
        for name, kind in (("shape", Shape), ("loss", RankerLoss)):
            if getattr(self, name) not in get_args(kind):
                wanted = " or ".join(get_args(kind))
                raise UsageError("usage.setting", f"{name} is {getattr(self, name)!r}; expected {wanted}")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)


def parse_ranker(settings: tuple[str, ...]) -> RankerConfig:
    """Make a configuration from ``NAME=VALUE`` texts; raises UsageError ``usage.setting``."""
    kinds: dict[str, Callable[[str], Any]] = {
        field.name: {"int": int, "float": float}.get(str(field.type), str) for field in fields(RankerConfig)
    }
    values = {}
    for text in settings:
        name, _, given = text.partition("=")
        if name not in kinds:
            raise UsageError("usage.setting", f"no setting is named {name!r}; there are {', '.join(sorted(kinds))}")
        try:
            values[name] = kinds[name](given)
        except ValueError as cause:
            raise UsageError("usage.setting", f"{name} is {given!r}; expected {kinds[name].__name__}") from cause
    return RankerConfig(**values)


@dataclass(frozen=True)
class Examples:
    """What is learned from: example i is user ``user_of[i]``, item ``item_of[i]``, their features and its label.

    ``users`` (U, F), ``items`` (I, G - P), ``pairs`` (n, P), ``labels`` (n,) 0 or 1, all float32.
    """

    users: Tensor
    user_of: Tensor
    items: Tensor
    item_of: Tensor
    pairs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, index: Tensor) -> Examples:
        """Return these examples."""
        return replace(
            self,
            user_of=self.user_of[index],
            item_of=self.item_of[index],
            pairs=self.pairs[index],
            labels=self.labels[index],
        )

    def inputs(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of the users (B, F) and of the items (B, G) of these examples."""
        return self.users[self.user_of[index]], torch.cat([self.items[self.item_of[index]], self.pairs[index]], dim=1)


class Plain(nn.Module):
    """One hidden layer over all features: (B, F) and (B, G) -> (B,)."""

    def __init__(self, user_width: int, item_width: int, hidden: int) -> None:
        super().__init__()
        self.user = nn.Linear(user_width, hidden)
        self.item = nn.Linear(item_width, hidden, bias=False)
        self.out = nn.Linear(hidden, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.out(torch.relu(self.user(user) + self.item(item))).squeeze(1)
        return logits


class TwoBranch(nn.Module):
    """A hidden layer over the user's features and one over the item's, concatenated: (B, F) and (B, G) -> (B,)."""

    def __init__(self, user_width: int, item_width: int, hidden: int) -> None:
        super().__init__()
        self.user = nn.Linear(user_width, hidden)
        self.item = nn.Linear(item_width, hidden)
        self.out = nn.Linear(2 * hidden, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the logits."""
        joined = torch.cat([torch.relu(self.user(user)), torch.relu(self.item(item))], dim=1)
        logits: Tensor = self.out(joined).squeeze(1)
        return logits


SHAPES: dict[str, type[Plain] | type[TwoBranch]] = {"plain": Plain, "two-branch": TwoBranch}


class Ranker(nn.Module):
    """A network between the standardization of its features and the calibration of its logits."""

    def __init__(self, shape: Shape, user_width: int, item_width: int, hidden: int) -> None:
        super().__init__()
        self.network = SHAPES[shape](user_width, item_width, hidden)
        for name, width in (("user", user_width), ("item", item_width)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_scale", torch.ones(width))
        self.register_buffer("calibration", torch.tensor([[1.0, 0.0], [1.0, 0.0]]))

    def standardize(self, examples: Examples) -> None:
        """Take the mean and the spread of these examples; a feature that never changes is only shifted to 0."""
        for name, found in zip(("user", "item"), examples.inputs(torch.arange(len(examples))), strict=True):
            spread = found.std(dim=0, correction=0)
            self.get_buffer(f"{name}_mean").copy_(found.mean(dim=0))
            self.get_buffer(f"{name}_scale").copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def calibrate(self, fresh: tuple[float, float], had: tuple[float, float]) -> None:
        """Take ``slope * logit + offset`` in the place of the logits, one pair for items that the user had before."""
        self.get_buffer("calibration").copy_(torch.tensor([fresh, had]))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the logits of the probability, (B,), from features (B, F) and (B, G).

        The item's last feature is above zero where the user had it before; that chooses the calibration.
        """
        slope, offset = self.get_buffer("calibration")[(item[:, -1] > 0).long()].T
        user = (user - self.get_buffer("user_mean")) / self.get_buffer("user_scale")
        item = (item - self.get_buffer("item_mean")) / self.get_buffer("item_scale")
        logits: Tensor = slope * self.network(user, item) + offset
        return logits


@torch.no_grad()
def logits_of(ranker: Ranker, examples: Examples) -> Tensor:
    """Return the logits of all examples, (n,) float32."""
    begins = range(0, len(examples), EVALUATED_AT_A_TIME)
    parts = (torch.arange(begin, min(begin + EVALUATED_AT_A_TIME, len(examples))) for begin in begins)
    return torch.cat([ranker(*examples.inputs(index)) for index in parts])


def learn(
    examples: Examples, held_out: Examples, config: RankerConfig, vector_width: int = 0
) -> tuple[Ranker, list[dict[str, float]]]:
    """Train on examples, stop early by the loss on others, best of a later time; return the best and the curve.

    The first ``vector_width`` features of users and of items are vectors, whose weights are held small. Adam; the same
    seed gives the same ranker, bit for bit, on the same machine. Raises DataError ``data.no_targets``
    where the labels of either part are all the same.
    """
    for name, part in (("learned", examples), ("held out", held_out)):
        if not 0 < int(part.labels.sum()) < len(part):
            raise DataError(
                "data.no_targets",
                f"{int(part.labels.sum())} of the {len(part)} examples {name} have the target event; a ranker needs "
                "some with and some without: raise --setting moments or horizon_days",
            )
    random = torch.Generator().manual_seed(config.seed)
    ranker = _new_ranker(examples, config)
    ranker.standardize(examples)
    optimizer = torch.optim.Adam(ranker.parameters(), lr=config.learning_rate)
    best, best_epoch, best_state, curve = float("inf"), 0, deepcopy(ranker.state_dict()), list[dict[str, float]]()
    while len(curve) < config.max_epochs and len(curve) - best_epoch < config.patience:
        loss = _epoch(ranker, optimizer, examples, config, vector_width, random)
        with torch.no_grad():
            found = float(_loss(logits_of(ranker, held_out), held_out.labels, config.loss))
        curve.append({"epoch": len(curve) + 1, "loss": loss, "held_out_loss": found})
        if found < best:
            best, best_epoch, best_state = found, len(curve), deepcopy(ranker.state_dict())
    ranker.load_state_dict(best_state)
    return ranker.eval(), curve


def _epoch(
    ranker: Ranker,
    optimizer: torch.optim.Adam,
    examples: Examples,
    config: RankerConfig,
    vector_width: int,
    random: torch.Generator,
) -> float:
    first_layer = ranker.network.user.weight, ranker.network.item.weight
    order, loss = torch.randperm(len(examples), generator=random), 0.0
    for begin in range(0, len(order), config.batch):
        index = order[begin : begin + config.batch]
        optimizer.zero_grad(set_to_none=True)
        mean = _loss(ranker(*examples.inputs(index)), examples.labels[index], config.loss)
        penalty = torch.stack([weight[:, :vector_width].square().sum() for weight in first_layer]).sum()
        (mean + config.vector_penalty * penalty).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss += float(mean.detach()) * len(index) / len(order)
    return loss


def _new_ranker(examples: Examples, config: RankerConfig) -> Ranker:
    user, item = examples.inputs(torch.arange(1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Ranker(config.shape, user.shape[1], item.shape[1], config.hidden)


def _loss(logits: Tensor, labels: Tensor, loss: RankerLoss) -> Tensor:
    if loss == "mse":
        return functional.mse_loss(torch.sigmoid(logits), labels)
    return functional.binary_cross_entropy_with_logits(logits, labels)
