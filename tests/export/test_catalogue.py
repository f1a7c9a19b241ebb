"""New items, prices and what is offered reach a bundle without training, whole or as a delta."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from small_shop import small_config
from xrec_export.build import Release, build_bundle
from xrec_export.catalogue import Next, update_bundle, update_delta
from xrec_export.cli import main
from xrec_export.compare import compare
from xrec_export.from_run import load
from xrec_export.inspect import verify_bundle
from xrec_export.item_changes import Change, read_changes
from xrec_export.item_tower import content_rows
from xrec_export.parity import Tolerance
from xrec_sdk.bundle import Bundle, open_bundle
from xrec_sdk.delta import apply_delta
from xrec_sdk.errors import BundleUntrusted, DataError, UsageError
from xrec_sdk.history import History
from xrec_sdk.runtime import Runtime
from xrec_sdk.signature import generate_key
from xrec_trainer.fit import fit
from xrec_trainer.rank import rank
from xrec_trainer.ranker import RankerConfig
from xrec_trainer.run import load_run

PEM, PUBLIC = generate_key()
NOTHING = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
CHANGES = (
    *(
        Change(f"new-{number}", {"title": f"Thing {number}", "category": f"group {number % 15}"})
        for number in range(120)
    ),
    Change("sku-3", {"category": "group 9"}),
    Change("sku-4", {"title": "Another name"}),
    Change("sku-5", {"price": 6.5}, False),
    Change("sku-6", {}, False),
)


def following(number: int | None = None, **changes: object) -> Next:
    return Next(number, "2026-02-03T04:05:06Z", PEM, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["int8", "fp16"])
def base(trained: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    target = tmp_path_factory.mktemp("base") / "shop.xrec"
    release = Release("shop", 7, "2026-01-02T03:04:05Z", PEM, request.param)
    model, cases = load(trained, case_limit=20)
    build_bundle(model, cases, target, release=release, tolerance=Tolerance(0.5, 1))
    return target


@pytest.fixture(scope="module")
def updated(base: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("updated") / "shop.xrec"
    done = update_bundle(base, CHANGES, trained, target, following())
    assert (done.added, done.changed, done.withdrawn, done.offered_again) == (120, 3, 2, 0)
    return target


def opened(path: Path) -> Bundle:
    return open_bundle(path, trusted_keys=[PUBLIC])


def rows_of(bundle: Bundle, ids: Sequence[str]) -> np.ndarray:
    return bundle.item_vectors(bundle.ids.rows(ids))


def test_new_items_have_the_row_of_their_content(updated: Path, trained: Path) -> None:
    bundle = opened(updated)
    assert len(bundle.ids) == len(opened(updated).catalog) == len(load_run(trained).catalogue) + 120
    expected = content_rows(load_run(trained), [dict(change.fields) for change in CHANGES[:120]])
    found = rows_of(bundle, [change.item_id for change in CHANGES[:120]])
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, atol=np.abs(expected).max() / 200)
    assert bundle.catalog.entry(bundle.ids.row("new-7") or 0) == {"title": "Thing 7", "category": "group 7"}
    assert bundle.catalog.category_name(bundle.ids.row("new-7") or 0) == "group 7"


def test_the_tower_says_of_trained_items_what_training_said(trained: Path) -> None:
    run = load_run(trained)
    np.testing.assert_array_equal(content_rows(run, run.catalogue.entries), run.model.content_rows().detach().numpy())


def test_a_row_moves_with_its_content_and_no_other_does(base: Path, updated: Path, trained: Path) -> None:
    before, after, run = opened(base), opened(updated), load_run(trained)
    ids = [before.ids.item_id(row) for row in range(len(before.ids))]
    moved = [name for name in ids if not np.array_equal(rows_of(before, [name]), rows_of(after, [name]))]
    assert moved == ["sku-3"]
    entries = [before.catalog.entry(before.ids.row("sku-3") or 0), after.catalog.entry(after.ids.row("sku-3") or 0)]
    step = np.diff(content_rows(run, entries), axis=0)
    np.testing.assert_allclose(
        rows_of(after, ["sku-3"]) - rows_of(before, ["sku-3"]), step, atol=np.abs(rows_of(before, ["sku-3"])).max() / 60
    )
    assert after.catalog.entry(after.ids.row("sku-4") or 0)["title"] == "Another name"


def test_what_is_not_offered_is_in_no_list_and_still_known(base: Path, updated: Path) -> None:
    bundle = opened(updated)
    runtime, withdrawn = Runtime(bundle), bundle.ids.rows(["sku-5", "sku-6"])
    rows, _ = runtime.top(bundle.item_vectors(withdrawn)[0], len(bundle.ids), runtime.no_bias(), *NOTHING)
    assert len(rows) == len(bundle.ids) - 2 and not np.isin(withdrawn, rows).any()
    codes = [np.array([one], dtype=np.int32) for one in (withdrawn[0], 1, 1, 0)]
    np.testing.assert_array_equal(runtime.encode(History(*codes)), Runtime(opened(base)).encode(History(*codes)))


def test_the_next_update_offers_it_again_and_says_so(updated: Path, trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "shop.xrec"
    done = update_bundle(
        updated, [Change("sku-5", {}, True), Change("sku-6", {"price": 3.0})], trained, target, following(20)
    )
    assert (done.base_release, done.offered_again, done.withdrawn, done.changed, done.added) == (8, 1, 0, 1, 0)
    bundle = opened(target)
    assert bundle.manifest.release == 20
    offered = np.isfinite(bundle.bias.reshape(-1)[bundle.ids.rows(["sku-5", "sku-6"])])
    assert offered.tolist() == [True, False]
    assert bundle.card.count("## Items since") == 1 and "## Items since release 8" in bundle.card
    assert bundle.card.startswith("# shop, release 20\n") and "## What the format costs" in bundle.card


def test_diff_says_that_the_model_is_the_same(base: Path, updated: Path) -> None:
    said = compare(base, updated, [PUBLIC])
    assert said["model"]["encoder"] == "same" and said["model"]["rows_changed"] == 1  # type: ignore[index]
    counts = {name: one["count"] for name, one in said["items"].items()}  # type: ignore[attr-defined]
    assert counts == {"added": 120, "removed": 0, "changed": 3, "no longer offered": 2}


def test_the_update_is_signed_verified_and_certified(base: Path, updated: Path) -> None:
    assert verify_bundle(updated, PUBLIC)["release"] == 8
    before, after = opened(base).manifest.parity, opened(updated).manifest.parity
    assert after["catalogue"]["added"] == 120  # type: ignore[index]
    assert {name: value for name, value in after.items() if name != "catalogue"} == before


def test_an_update_that_changes_nothing_gives_the_same_graphs_and_items(
    base: Path, trained: Path, tmp_path: Path
) -> None:
    update_bundle(base, [Change("sku-3", {})], trained, tmp_path / "x.xrec", following())
    for name in ("items.bin", "encoder.onnx", "scorer.onnx", "ids.bin", "catalog.bin", "conformance.json"):
        assert (tmp_path / "x.xrec" / name).read_bytes() == (base / name).read_bytes(), name


def test_a_delta_makes_what_the_whole_update_is(base: Path, updated: Path, trained: Path, tmp_path: Path) -> None:
    done, whole = update_delta(base, CHANGES, trained, tmp_path / "8.xdelta", following())
    assert done.added == 120 and whole == sum(path.stat().st_size for path in updated.iterdir())
    apply_delta(base, tmp_path / "8.xdelta", tmp_path / "next.xrec", trusted_keys=[PUBLIC])
    for path in updated.iterdir():
        assert (tmp_path / "next.xrec" / path.name).read_bytes() == path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["8.xdelta", "next.xrec"]


def test_a_release_that_is_not_later_or_a_bundle_of_another_key_is_refused(
    base: Path, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        update_bundle(base, CHANGES, trained, tmp_path / "x.xrec", following(7))
    assert caught.value.code == "usage.release"
    other = Next(None, "2026-02-03T04:05:06Z", generate_key()[0])
    with pytest.raises(BundleUntrusted):
        update_bundle(base, CHANGES, trained, tmp_path / "x.xrec", other)
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_rows_of_one_length_is_refused(shop: Path, tmp_path: Path) -> None:
    fit(shop, tmp_path / "run", small_config(unit_rows=True, content=True, max_epochs=1, quantized_epochs=0))
    model, cases = load(tmp_path / "run", case_limit=5)
    release = Release("shop", 7, "2026-01-02T03:04:05Z", PEM)
    build_bundle(model, cases, tmp_path / "shop.xrec", release=release, tolerance=Tolerance(0.5, 1))
    with pytest.raises(DataError, match="unit_rows=true") as caught:
        update_bundle(tmp_path / "shop.xrec", CHANGES, tmp_path / "run", tmp_path / "x.xrec", following())
    assert caught.value.code == "data.no_content"


def test_another_run_is_refused(base: Path, trained: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(trained, tmp_path / "run"))
    said = json.loads((other / "run.json").read_text())
    said["facts"]["seconds"] = -1
    (other / "run.json").write_text(json.dumps(said))
    with pytest.raises(DataError) as caught:
        update_bundle(base, CHANGES, other, tmp_path / "x.xrec", following())
    assert caught.value.code == "data.run_differs"


def write_items(path: Path, *rows: dict[str, object]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def test_items_are_read_from_parquet(tmp_path: Path) -> None:
    path = write_items(
        tmp_path / "items.parquet",
        {"item_id": "a", "title": "A", "price": None, "attributes": '{"colour": "red"}', "available": None},
        {"item_id": "b", "title": None, "price": 2.5, "attributes": None, "available": False},
    )
    assert read_changes(path) == [
        Change("a", {"title": "A", "colour": "red"}),
        Change("b", {"price": 2.5}, False),
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [{"title": "no id"}],
        [{"item_id": None}],
        [{"item_id": "a"}, {"item_id": "a"}],
        [{"item_id": "a", "available": "yes"}],
        [{"item_id": "a", "attributes": "["}],
        [{"item_id": "a", "attributes": "[]"}],
    ],
)
def test_items_that_are_not_right_are_a_data_error(rows: list[dict[str, object]], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_changes(write_items(tmp_path / "items.parquet", *rows))
    assert caught.value.code == "data.items"


def test_the_command_writes_a_delta_and_says_its_size(base: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(PEM)
    items = write_items(tmp_path / "items.parquet", {"item_id": "fresh", "title": "Thing 12", "category": "group 1"})
    words = ["catalogue", base, "--items", items, "--run", trained, "--key", tmp_path / "key.pem", "--json"]
    made = CliRunner().invoke(main, [*map(str, words), "--out", str(tmp_path / "8.xdelta"), "--delta"])
    assert made.exit_code == 0, made.output
    said = json.loads(made.stdout)
    assert said["bytes"] == (tmp_path / "8.xdelta").stat().st_size < said["bytes_of_the_whole"] / 3
    whole = CliRunner().invoke(main, [*map(str, words), "--out", str(tmp_path / "8.xrec")])
    assert json.loads(whole.stdout)["added"] == 1 and verify_bundle(tmp_path / "8.xrec", PUBLIC)["release"] == 8
    missing = CliRunner().invoke(
        main, [*map(str, ["catalogue", base, "--items", tmp_path / "no", *words[4:]]), "--out", "x"]
    )
    assert missing.exit_code == 1 and "data.items" in missing.stderr


def test_a_ranker_goes_on_with_new_items_and_prices(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    rank(run, RankerConfig(moments=150, depth=10, max_epochs=1))
    model, cases = load(run, case_limit=10)
    release = Release("shop", 1, "2026-01-02T03:04:05Z", PEM)
    build_bundle(model, cases, tmp_path / "1.xrec", release=release, tolerance=Tolerance(0.5, 1))
    changes = [Change("new", {"title": "Thing 1", "price": 9.0}), Change("sku-2", {"price": 19.0}), Change("free", {})]
    update_bundle(tmp_path / "1.xrec", changes, run, tmp_path / "2.xrec", following())
    assert verify_bundle(tmp_path / "2.xrec", PUBLIC)["golden_cases"]  # with torch's probabilities
    before, after = opened(tmp_path / "1.xrec"), opened(tmp_path / "2.xrec")
    assert before.features is not None and after.features is not None
    new, changed, free = after.ids.rows(["new", "sku-2", "free"])
    np.testing.assert_allclose(after.features[:, new], [0, np.log(10)], rtol=1e-6)
    np.testing.assert_allclose(after.features[:, changed], [before.features[0, changed], np.log(20)], rtol=1e-6)
    mean = before.features[1, : len(before.ids)].mean()
    np.testing.assert_allclose(after.features[:, free], [0, mean], rtol=1e-5)
    others = np.setdiff1d(np.arange(len(before.ids)), [changed])
    np.testing.assert_array_equal(after.features[:, others], before.features[:, others])
