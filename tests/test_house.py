"""The shape of the house: arrows between packages, no circles inside one, what an import loads, the public face."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
import xrec_sdk

ROOT = Path(__file__).parents[1]
PACKAGES = {"xrec_sdk": "sdk", "xrec_trainer": "trainer", "xrec_export": "export", "xrec_server": "server"}
MAY_IMPORT = {
    "xrec_sdk": {"xrec_sdk"},
    "xrec_trainer": {"xrec_trainer", "xrec_sdk"},
    "xrec_export": {"xrec_export", "xrec_trainer", "xrec_sdk"},
    "xrec_server": {"xrec_server", "xrec_sdk"},
}


def imports_of(path: Path) -> set[str]:
    """Return every module that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= named if all(map(is_module, named)) else {node.module} | named
    return found


def is_module(name: str) -> bool:
    """Return whether a dotted name is one of our files; `from package import file` asks nothing of the package."""
    return any((ROOT / folder / f"{name.replace('.', '/')}.py").exists() for folder in PACKAGES.values())


def modules(package: str) -> dict[str, Path]:
    """Return the files of a package by module name."""
    folder = ROOT / PACKAGES[package]
    paths = sorted((folder / package).rglob("*.py"))
    return {".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_between_packages_run_down_only(package: str) -> None:
    for name, path in modules(package).items():
        ours = {module.split(".")[0] for module in imports_of(path)} & set(PACKAGES)
        assert ours <= MAY_IMPORT[package], f"{name} imports {ours - MAY_IMPORT[package]}"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_circle_inside_a_package(package: str) -> None:
    files = modules(package)
    arrows = {name: (imports_of(path) & set(files)) - {name} for name, path in files.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in arrows[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in arrows:
        visit(name, ())


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_begins_with_a_sentence(package: str) -> None:
    for name, path in modules(package).items():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{name} has no docstring"


def test_the_sdk_needs_only_the_base_install() -> None:
    third_party = {"numpy", "onnxruntime", "cryptography"}
    of_extras = {
        "xrec_sdk.store_encrypted": {"apsw"},
        "xrec_sdk.sync_http": {"urllib3"},
        "xrec_sdk.updater": {"tuf", "urllib3"},
    }
    for name, path in modules("xrec_sdk").items():
        outside = {module.split(".")[0] for module in imports_of(path)} - set(sys.stdlib_module_names) - {"xrec_sdk"}
        outside -= of_extras.get(name, set())
        assert outside <= third_party, f"{name} imports {outside - third_party}"


def test_the_base_install_is_numpy_onnxruntime_and_cryptography() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [name.split(">=")[0] for name in project["dependencies"]] == ["numpy", "onnxruntime", "cryptography"]


def test_importing_the_sdk_loads_nothing_heavy() -> None:
    heavy = ("onnxruntime", "cryptography", "torch", "click", "asyncio", "apsw", "urllib3", "ssl")
    code = f"import sys, xrec_sdk; print([name for name in {heavy} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_the_public_names_are_sorted_there_and_documented() -> None:
    assert sorted(xrec_sdk.__all__) == list(xrec_sdk.__all__)
    for name in xrec_sdk.__all__:
        value = getattr(xrec_sdk, name)
        assert isinstance(value, str) or value.__doc__, f"{name} has no docstring"
