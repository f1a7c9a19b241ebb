"""Try a server against its own OpenAPI document with schemathesis: `make test-api`.

    python tests/server/fuzz_api.py PATH_OF_ST [--examples 100] [--seed 1]

Answers must have a documented status, content type and schema, and no request may make the server fail. Not asked: that
whatever the schema allows is accepted, for JSON Schema calls 1.0 a whole number and the protocol does not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from served import served, settings, token


def main() -> None:
    """Serve, run schemathesis over everything, and fail where it found something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("st", help="The program of schemathesis.")
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, served(settings(Path(name), events_per_minute=10**9)) as port:
        words = [given.st, "run", f"http://127.0.0.1:{port}/openapi.json", "--phases", "coverage,fuzzing"]
        words += ["-H", f"Authorization: Bearer {token(Path(name))}", "--exclude-checks", "positive_data_acceptance"]
        words += ["--max-examples", str(given.examples), "--seed", str(given.seed)]
        done = subprocess.run(words)
    print(json.dumps({"passed": done.returncode == 0}))
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
