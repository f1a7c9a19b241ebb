from __future__ import annotations

import pickle
import re
from pathlib import Path

from xrec_sdk.errors import BundleDamaged, BundleError, XrecError

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"\b((?:bundle|usage|data|profile|gate)\.[a-z][a-z0-9_]+)\b")


def test_every_code_of_the_sdk_stands_in_the_documentation():
    source = "\n".join(path.read_text() for path in (ROOT / "sdk" / "xrec_sdk").glob("*.py"))
    raised = {match[1] for match in re.finditer(r'"((?:bundle|usage|data|profile|gate)\.[a-z][a-z0-9_]+)"', source)}
    documented = set(CODE.findall((ROOT / "docs" / "errors.md").read_text()))
    assert len(raised) > 40
    assert raised - documented == set()


def test_a_documented_bundle_or_profile_code_is_raised_somewhere():
    files = [*(ROOT / "sdk" / "xrec_sdk").glob("*.py"), *(ROOT / "bindings" / "js" / "src").rglob("*.ts")]
    source = "\n".join(path.read_text() for path in files)
    documented = set(CODE.findall((ROOT / "docs" / "errors.md").read_text()))
    assert {
        code for code in documented if code.startswith(("bundle.", "profile.")) and f'"{code}"' not in source
    } == set()


def test_an_error_survives_pickling_with_its_code():
    copy = pickle.loads(pickle.dumps(BundleDamaged("bundle.unreadable", "why")))
    assert (type(copy), copy.code, str(copy)) == (BundleDamaged, "bundle.unreadable", "why")
    assert issubclass(BundleDamaged, BundleError) and issubclass(BundleError, XrecError)
