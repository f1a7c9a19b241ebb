"""Every runtime is asked the same, and one that answers otherwise stops the release."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from xrec_export import item_scan, parity, quantize, scorer_graph
from xrec_export.build import Release, build_bundle
from xrec_export.certificate import Certificate
from xrec_export.lists import Lists, Questions, ask, load_questions, onnxruntime_answer, save_questions
from xrec_export.parity import Tolerance
from xrec_export.runtimes import CPUS, EMULATOR, ask_all, named_cpus, numpy_answer
from xrec_sdk.bundle import Bundle, open_bundle
from xrec_sdk.errors import GateError, UsageError
from xrec_sdk.history import History
from xrec_sdk.signature import generate_key

sys.path.insert(0, str(Path(__file__).parent))
from small_models import make_cases, make_model

PEM, PUBLIC = generate_key()
RELEASE = Release("small", 1, "2026-01-02T03:04:05Z", PEM)
LOOSE = Tolerance(min_overlap=0.8, max_ndcg_loss=0.5)
VECTORS = Path(__file__).parents[1] / "vectors"
emulated = pytest.mark.skipif(shutil.which(EMULATOR) is None, reason="qemu-user is not installed")


def questions(bundle: Bundle, number: int) -> Questions:
    """Return histories of every length, 0 too, and biases that lift some of their rows and forbid others."""
    vocabulary, random = bundle.manifest.vocabulary, np.random.default_rng(5)
    bounds = (len(bundle.ids), vocabulary.event_count, vocabulary.device_count, vocabulary.gap_count)
    histories = [
        History(
            *(random.integers(0, bound, size=length % (1 + vocabulary.max_history), dtype=np.int32) for bound in bounds)
        )
        for length in range(number)
    ]
    rows = [np.unique(history.rows) for history in histories]
    return Questions(histories, [(one, np.where(one % 2, -np.inf, 0.5).astype(np.float32)) for one in rows])


@pytest.mark.parametrize("name", ["lowpass", "pool"])
def test_the_numpy_reference_answers_as_onnxruntime(name: str) -> None:
    bundle = open_bundle(VECTORS / f"{name}.xrec", allow_unsigned=True)
    asked = questions(bundle, 20)
    ours, theirs = (ask(answer(bundle), asked, 20) for answer in (numpy_answer, onnxruntime_answer))
    np.testing.assert_array_equal(ours.rows, theirs.rows)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)


def test_questions_come_back_from_their_file(tmp_path: Path) -> None:
    asked = questions(open_bundle(VECTORS / "pool.xrec", allow_unsigned=True), 12)
    save_questions(tmp_path / "questions.npz", asked)
    back = load_questions(tmp_path / "questions.npz")
    for one, other in zip(asked.histories, back.histories, strict=True):
        assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))
    for one_bias, other_bias in zip(asked.biases, back.biases, strict=True):
        assert np.array_equal(one_bias[0], other_bias[0]) and np.array_equal(one_bias[1], other_bias[1])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Certificate]:
    path = tmp_path_factory.mktemp("built") / "x.xrec"
    return path, build_bundle(make_model(), make_cases(40), path, release=RELEASE, tolerance=LOOSE)


def test_the_certificate_names_each_runtime_and_the_float_model_is_the_measure(built: tuple[Path, Certificate]) -> None:
    path, made = built
    here, reference = made.parity.runtimes.values()
    assert here.agreement == reference.agreement == 1
    assert 0.9 < here.overlap <= 1 and 0.8 < here.kendall_tau <= 1
    low, high = here.ndcg_difference_95
    assert low <= here.ndcg_difference <= high
    assert here.ndcg - made.parity.ndcg_float == pytest.approx(here.ndcg_difference)
    kept = open_bundle(path, trusted_keys=[PUBLIC])
    assert set(kept.manifest.parity["runtimes"]) == set(made.parity.runtimes)  # type: ignore[call-overload]
    assert "reference in NumPy" in kept.card


def test_a_runtime_that_swaps_two_items_is_refused(
    built: tuple[Path, Certificate], monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(*arguments: object) -> dict[str, Lists]:
        found = ask_all(*arguments)  # type: ignore[arg-type]
        here = next(iter(found.values()))
        rows = here.rows.copy()
        rows[3, [0, 1]] = rows[3, [1, 0]]
        return {**found, "a faulty runtime": Lists(rows, here.scores)}

    monkeypatch.setattr(parity, "ask_all", swapped)
    bundle = open_bundle(built[0], trusted_keys=[PUBLIC])
    measured = parity.measure(make_model(), built[0], bundle, make_cases(20), ())
    with pytest.raises(GateError) as caught:
        Certificate(measured, LOOSE).check()
    assert caught.value.code == "gate.runtime" and "a faulty runtime" in str(caught.value)
    assert "5.0 % of 20 users" in str(caught.value)


def test_kendall_tau_by_hand() -> None:
    case = make_cases(1)[0]
    lists_of = Lists(np.array([[5, 9, 2, 7]], np.int32), np.array([[4, 3, 2, 1]], np.float32))
    floats, scores = np.array([[5, 2, 9, 7]], np.int32), np.array([[4, 2, 3, 1]], np.float32)
    found = parity._compare(lists_of, floats, scores, lists_of, [case])
    assert found.kendall_tau == pytest.approx((5 - 1) / 6) and found.overlap == 1  # one of six pairs is turned


def test_all_stands_for_the_three_cpus() -> None:
    assert named_cpus(("all",)) == CPUS
    assert named_cpus(("Nehalem", "all")) == ("Nehalem", "Haswell", "Skylake-Client")


@emulated
def test_a_cpu_that_nobody_makes_is_a_usage_error() -> None:
    path = VECTORS / "lowpass.xrec"
    bundle = open_bundle(path, allow_unsigned=True)
    with pytest.raises(UsageError) as caught:
        ask_all(path, bundle, questions(bundle, 2), 10, ["Abacus"])
    assert caught.value.code == "usage.emulate"


@emulated
def test_eight_bits_are_refused_for_a_cpu_without_vnni(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "USER_ZERO_POINT", 128)
    monkeypatch.setattr(item_scan, "USER_ZERO_POINT", 128)
    monkeypatch.setattr(item_scan, "USER_LEVELS", 127)
    monkeypatch.setattr(scorer_graph, "LEAST_CANDIDATES", 10)
    monkeypatch.setattr(scorer_graph, "CANDIDATES_PER_ANSWER", 1)
    loose = Tolerance(min_overlap=0, max_ndcg_loss=1)
    with pytest.raises(GateError) as caught:
        build_bundle(
            make_model(), make_cases(30), tmp_path / "x.xrec", release=RELEASE, tolerance=loose, cpus=["Haswell"]
        )
    assert caught.value.code == "gate.runtime" and "emulated Haswell" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@emulated
def test_seven_bits_give_the_same_lists_on_a_cpu_without_vnni() -> None:
    path = VECTORS / "lowpass.xrec"
    bundle = open_bundle(path, allow_unsigned=True)
    here, _, haswell = ask_all(path, bundle, questions(bundle, 40), 10, ["Haswell"]).values()
    assert parity._agreement(haswell, here) == 1
    assert (here.rows >= 0).any()
