"""Leave-one-out on Amazon Beauty, LastFM or a file of their form, as published tables use them: prepare, fit, evaluate.

The files are `Beauty.txt` and `LastFM.txt` of the S3-Rec preprocessing (Zhou et al., CIKM 2020): a line is
`user item item ...` in time order. Get them from the S3-Rec repository's data folder, put them in
`$XREC_DATA/amazon-beauty/` and `$XREC_DATA/lastfm/`, then run
`python benchmarks/leave_one_out.py --data beauty --out build/beauty`; `--data` may be the path of another such file.
The files have no time stamps: event number n is written as day n. Where `NAME_item2attributes.json` lies beside
`NAME.txt`, it becomes the items' attributes; the published tables of models without side information do not use them,
and with `--setting content=false` no more do we.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

FILES = {"beauty": "amazon-beauty/Beauty.txt", "lastfm": "lastfm/LastFM.txt"}
SOURCES = """\
[[source]]
name = "interactions"
files = "events.csv"
columns = { user_id = "user", item_id = "item", at = "at" }
constants = { device = "pc", event = "purchase" }
time_unit = "s"

[clean]
duplicates = "keep"
"""
ITEMS = """
[items]
files = "items.csv"
columns = { item_id = "item" }
attributes = { attributes = "attributes" }
"""


def write_log(data: str, out: Path) -> None:
    """Write what `xrec-train prepare` reads of a data set to ``out``: sources.toml, events.csv, perhaps items.csv."""
    path = Path(os.environ["XREC_DATA"]) / FILES[data] if data in FILES else Path(data)
    with (out / "events.csv").open("w") as events:
        events.write("user,item,at\n")
        for user, *items in map(str.split, path.read_text().splitlines()):
            events.writelines(f"u{user},i{item},{(number + 1) * 86_400}\n" for number, item in enumerate(items))
    attributes = path.with_name(path.stem + "_item2attributes.json")
    (out / "sources.toml").write_text(SOURCES + ITEMS if attributes.exists() else SOURCES)
    if attributes.exists():
        with (out / "items.csv").open("w") as entries:
            entries.write("item,attributes\n")
            for item, numbers in json.loads(attributes.read_text()).items():
                entries.write(f"i{item},{'|'.join(map(str, numbers))}\n")


def main() -> None:
    """Write the events, then run xrec's own commands on them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="beauty, lastfm or the path of a file")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--setting", action="append", default=[])
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    write_log(arguments.data, out)
    settings = [part for setting in ["filter_seen=true", *arguments.setting] for part in ("--setting", setting)]
    tool = str(Path(sys.executable).parent / "xrec-train")
    subprocess.run([tool, "prepare", out / "sources.toml", "--out", out / "data"], check=True)
    subprocess.run([tool, "fit", out / "data", "--out", out / "run", "--split", "leave-one-out", *settings], check=True)
    subprocess.run([tool, "evaluate", out / "run"], check=True)


if __name__ == "__main__":
    main()
