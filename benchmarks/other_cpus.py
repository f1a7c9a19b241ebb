"""Run a bundle's golden cases on emulated CPUs, and compare the ids that come out with those of this machine.

    python benchmarks/other_cpus.py shop.xrec

Needs qemu-x86_64 (Debian: qemu-user). Haswell and Skylake-Client have AVX2 without VNNI, where 8-bit by 8-bit products
saturate; Nehalem has no AVX at all. A bundle that answers alike on all keeps "the same list on every device".
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys

CPUS = ("Haswell", "Skylake-Client", "Nehalem")

ANSWER = """
import json, sys
import numpy as np
from xrec_sdk.bundle import open_bundle
from xrec_sdk.conformance import check_conformance
from xrec_sdk.history import ARRAYS, History
from xrec_sdk.runtime import Runtime

bundle = open_bundle(sys.argv[1], allow_unsigned=True)
runtime = Runtime(bundle)
count = check_conformance(runtime, bundle)
lists = []
for case in json.loads(bundle.conformance)["cases"]:
    history = History(*(np.asarray(case[name], dtype=np.int32) for name in ARRAYS))
    biases = np.asarray(case["bias_rows"], dtype=np.int32), np.asarray(case["bias_values"], dtype=np.float32)
    rows, _ = runtime.top(runtime.encode(history), case["k"], runtime.no_bias(), *biases)
    lists.append([bundle.ids.item_id(int(row)) for row in rows])
print(json.dumps({"count": count, "lists": lists}))
"""


def answers(command: list[str], bundle: str) -> dict[str, object]:
    done = subprocess.run([*command, sys.executable, "-c", ANSWER, bundle], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command) or 'this machine'}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--cpu", action="append", help="an emulated CPU; by default all three")
    arguments = parser.parse_args()
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        raise SystemExit("qemu-x86_64 is not installed (Debian: apt install qemu-user)")
    here = answers([], arguments.bundle)
    print(f"this machine: {here['count']} golden cases pass")
    different = False
    for cpu in arguments.cpu or CPUS:
        there = answers([emulator, "-cpu", cpu], arguments.bundle)
        same = here["lists"] == there["lists"]
        different |= not same
        print(f"{cpu}: {there['count']} golden cases pass, {'the same ids' if same else 'OTHER IDS'}")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
