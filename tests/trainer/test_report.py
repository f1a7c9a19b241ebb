from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from xrec_trainer import plots
from xrec_trainer.figures import Value, value, verdict
from xrec_trainer.plots import Bar
from xrec_trainer.report import page, write_page
from xrec_trainer.report_text import table

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Collects tags and text, and fails on a tag that is closed out of turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def interval(mean: float, half: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def metrics_of(word: str = "milk") -> dict[str, object]:
    models = {
        "popularity": {"hr@10": 0.2, "ndcg@10": interval(0.1, 0.02), "ndcg@5": 0.08},
        "buy_again": {"hr@10": 0.5, "ndcg@10": interval(0.2, 0.02), "ndcg@5": 0.15},
        "xrec int8 bundle": {"hr@10": 0.54, "ndcg@10": interval(0.24, 0.02), "ndcg@5": 0.21},
        "xrec": {"hr@10": 0.54, "ndcg@10": interval(0.25, 0.02), "ndcg@5": 0.21},
    }
    groups = {model: {word: {"cases": 7.0, **values}} for model, values in models.items()}
    return {
        "title": word,
        "dataset": {word: 1234567, "From": word},
        "tasks": {
            word: {
                "title": word,
                "cases": 1480,
                "models": models,
                "differences": {
                    "popularity": {"ndcg@10": interval(0.15, 0.02)},
                    "buy_again": {"ndcg@10": interval(0.05, 0.06)},
                },
                "traits": {"xrec": {"coverage@10": 0.4}},
                "per_device": groups,
                "per_history": groups,
            }
        },
        "curve": [{"epoch": epoch, "loss": 5.0 - epoch, "validation_ndcg@10": 0.1 * epoch} for epoch in (1, 2, 3)],
        "best_epoch": 3,
        "bundle": {
            "size_bytes": 1_840_000,
            "cases": 9,
            "overlap@10": 0.987,
            "metrics": {"ndcg@10": {"float": 0.25, "bundle": 0.249, "difference": interval(-0.001, 0.002)}},
        },
        "examples": [
            {
                "device": word,
                "history": [word],
                "recommended": [{"title": word, "is_hit": True}, {"title": word, "is_hit": False}],
                "chosen": [word],
            }
        ],
        "notes": [word],
    }


def test_the_page_is_well_formed_and_holds_every_section():
    read = Reader(page(metrics_of()))
    assert read.open == []
    headings = {"The data", "milk", "How it learned", "Examples", "Words", "By device", "By length of the history"}
    assert headings <= set(read.text)
    assert [tag for tag, _ in read.tags].count("svg") == 4


def test_the_page_loads_and_runs_nothing():
    text = page(metrics_of())
    tags = Reader(text).tags
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in tags}
    assert not {"src", "href", "onload", "style"} & {name for _, attributes in tags for name in attributes}
    assert "http" not in text and "@import" not in text and "url(" not in text


def test_every_string_of_the_data_is_escaped():
    hostile = "<script>\"'&alert(1)</script>"
    metrics = metrics_of(hostile)
    metrics["model"] = hostile
    text = page(metrics)
    assert "<script" not in text and "alert(1)</script>" not in text
    read = Reader(text)
    assert read.open == []
    # title element, heading, headline, fact label and value, ...: all arrive as they were
    assert "".join(read.text).count(hostile) >= 12


def test_the_page_says_in_words_what_was_found():
    text = "".join(Reader(page(metrics_of())).text)
    assert "54 of 100 users find a right item among the first 10." in text
    assert "Against the strongest plain method, Buy again, NDCG@10 is +0.0500 (+25%): no clear difference." in text
    assert "better than Popular items" in text
    assert "98.7% of the first 10 are the same" in text
    assert "1.8 MB" in text and "1,234,567" in text


def test_the_best_of_a_group_and_the_hits_are_marked():
    text = page(metrics_of())
    assert text.count('<td class="best">0.2500</td>') == 2
    assert text.count('class="hit"') == 1


def test_only_tasks_are_required():
    read = Reader(page({"tasks": {"all": {"models": {"xrec": {"ndcg@10": 0.1}}}}}))
    assert read.open == []
    assert "Anything, repeats included" in "".join(read.text)
    assert "Examples" not in read.text


def test_what_is_not_a_number_is_shown_as_a_dash():
    metrics = {"tasks": {"all": {"models": {"xrec": {"ndcg@10": float("nan"), "hr@10": None}, "ease": {}}}}}
    text = page(metrics)
    assert "nan" not in text.replace("tabular", "").lower()
    assert "–" in text
    assert "–" in table(metrics)


def test_the_page_is_written_whole(tmp_path: Path):
    write_page(tmp_path / "report.html", metrics_of())
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page(metrics_of())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_table_shows_the_main_cut_off_and_the_differences():
    lines = table(metrics_of()).splitlines()
    assert lines[0] == "milk (1,480 cases)"
    assert lines[1].split() == ["hr@10", "ndcg@10", "ndcg@10", "95", "%"]
    assert lines[5].split() == ["*", "xrec", "0.5400", "0.2500", "[0.2300,", "0.2700]"]
    assert lines[6].strip() == "xrec - popularity: +0.1500 [+0.1300, +0.1700] ndcg@10: better"
    assert lines[7].strip() == "xrec - buy_again: +0.0500 [-0.0100, +0.1100] ndcg@10: no clear difference"
    assert lines[-1].split() == ["ndcg@10", "0.2500", "0.2490", "-0.00100", "[-0.0030,", "+0.0010]"]


@pytest.mark.parametrize(
    ("difference", "word"),
    [
        (Value(0.2, 0.1, 0.3), "better"),
        (Value(-0.2, -0.3, -0.1), "worse"),
        (Value(0.1, 0.0, 0.2), "no clear difference"),
        (Value(0.1), "not tested"),
    ],
)
def test_a_difference_has_a_verdict(difference: Value, word: str):
    assert verdict(difference) == word


def test_a_value_is_a_number_or_a_mean_with_its_interval():
    assert value(0.5) == Value(0.5, None, None)
    assert value({"mean": 0.5, "low": 0.4, "high": 0.6}) == Value(0.5, 0.4, 0.6)


def drawing(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def test_bars_are_as_long_as_their_values():
    found = drawing(plots.bars([Bar("a", 0.2), Bar("b", 0.4, is_main=True)], title="t"))
    short, long = (float(one.get("width", "0")) for one in found.iter("rect"))
    assert long == pytest.approx(2 * short, abs=0.2)
    assert [one.get("class") for one in found.iter("rect")] == ["bar", "bar main"]


def test_the_whisker_spans_the_interval_and_the_axis_stands_at_zero():
    found = drawing(plots.bars([Bar("a", 0.1, -0.1, 0.3)], title="t"))
    path = next(one.get("d", "") for one in found.iter("path") if one.get("class") == "whisker")
    low, high = re.match(r"M([\d.]+) [\d.]+H([\d.]+)", path).groups()  # type: ignore[union-attr]
    axis = next(float(one.get("x1", "0")) for one in found.iter("line"))
    assert axis == pytest.approx(float(low) + (float(high) - float(low)) / 4, abs=0.1)


def test_a_line_goes_up_where_the_values_do_and_rings_the_marked_point():
    found = drawing(plots.line([(1, 0.1), (2, 0.3), (3, float("nan"))], title="t", x_label="epoch", marked=2))
    (first, second) = [one.split(",") for one in next(found.iter("polyline")).get("points", "").split()]
    assert float(second[0]) > float(first[0]) and float(second[1]) < float(first[1])
    assert [one.get("class") for one in found.iter("circle")] == ["dot", "dot marked"]


@pytest.mark.parametrize("points", [[(1.0, 0.5)], [(1.0, 0.0), (2.0, 0.0)]])
def test_a_line_of_one_level_is_drawn(points: list[tuple[float, float]]):
    assert drawing(plots.line(points, title="t", x_label="epoch")).tag == "svg"


def test_nothing_gives_a_sentence_in_place_of_a_drawing():
    assert "Nothing to show" in plots.bars([Bar("a", float("nan"))], title="t")
    assert "Nothing to show" in plots.line([], title="t", x_label="epoch")
