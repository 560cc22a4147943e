"""The package is mapped as `pyproject.toml` says, and is one package only."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import poolproof

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FOLDERS = ("audit", "detectors", "simulate", "watermark")


def test_version_is_the_distributions() -> None:
    """`__version__` and the installed metadata agree."""
    assert poolproof.__version__ == metadata.version("poolproof") == PROJECT["project"]["version"]


def test_every_folder_with_code_is_listed() -> None:
    """A package folder that `pyproject.toml` does not list would be missing from the wheel."""
    if not (ROOT / "audit").is_dir():
        pytest.skip("the sources are out of reach: the wheel is under test")
    mapped = PROJECT["tool"]["setuptools"]["package-dir"]
    found = {
        "poolproof." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(mapped) - {"poolproof"}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == set(mapped)


@pytest.mark.parametrize("folder", FOLDERS)
def test_links_point_to_the_folders(folder: str) -> None:
    """Where `src/poolproof` holds a link, it leads to the folder of that name."""
    link = ROOT / "src" / "poolproof" / folder
    if not link.is_symlink():
        pytest.skip("no link here: editors miss it, builds do not")
    assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_bare_top_level_package(folder: str) -> None:
    """Nothing of ours is importable by a bare name, which belongs to others on the package index."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({folder!r}) is not None)"
    result = subprocess.run([sys.executable, "-I", "-c", code], check=False)
    assert result.returncode == 0


def test_root_package_loads_nothing_heavy() -> None:
    """Importing `poolproof` loads no subpackage and no third-party package."""
    code = (
        "import sys; before = set(sys.modules); import poolproof; "
        "print([m for m in set(sys.modules) - before if not m.startswith('_')])"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "['poolproof']"


def test_scoring_without_a_model_loads_no_torch() -> None:
    """A worker that scores by weight-free features starts without torch, faiss, scikit-learn or pandas."""
    code = (
        "import sys, numpy as np; from poolproof.audit.score import Scorer, score_shard; "
        "from poolproof.detectors.forensic import forensic_features; "
        "Scorer().payloads; forensic_features(np.zeros((64, 64, 3), np.uint8)); "
        "print(sorted({'torch', 'faiss', 'sklearn', 'pandas', 'open_clip', 'datasets', 'c2pa'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"
