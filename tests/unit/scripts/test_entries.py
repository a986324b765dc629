"""The help of every entry needs a plain Python alone: it makes no environment and imports no dependency."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.eventually import PATIENCE

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "scripts"
BENCHMARKS = sorted(path.name for path in (SCRIPTS / "bench").iterdir() if path.is_file() and not path.suffix)
OWN = ("scripts/demo", "scripts/fuzz", "scripts/load-faults", "scripts/soak")
ENTRIES = [*OWN, *(f"scripts/bench/{name}" for name in BENCHMARKS)]
PLAIN = {"PATH": "/usr/bin:/bin"}
PYTHON = Path("/usr/bin/python3")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the project without an environment."""
    clone = tmp_path_factory.mktemp("clone")
    shutil.copytree(SCRIPTS, clone / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, clone)
    return clone


def tree(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_there_are_entries() -> None:
    assert {"swarm", "fetch", "mirrors", "endpoint", "idle", "pull-through", "tracker", "hash", "simulate"} <= {
        *BENCHMARKS
    }


@pytest.mark.skipif(not PYTHON.exists(), reason="needs the system's Python")
@pytest.mark.parametrize("entry", ENTRIES)
def test_help_needs_no_environment(entry: str, clone: Path) -> None:
    before = tree(clone)
    done = subprocess.run(
        [clone / entry, "--help"], env=PLAIN, cwd="/", check=False, capture_output=True, text=True, timeout=4 * PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {entry} ")
    assert tree(clone) == before


@pytest.mark.skipif(not PYTHON.exists(), reason="needs the system's Python")
def test_a_benchmark_with_wrong_options_reports_them(clone: Path) -> None:
    command = [PYTHON, "-B", "-m", "scripts.bench", "simulate", "--zones", "0"]
    done = subprocess.run(
        command, env=PLAIN, cwd=clone, check=False, capture_output=True, text=True, timeout=4 * PATIENCE
    )
    assert done.returncode == 2
    assert "--nodes, --zones and --coarser start at 1" in done.stderr
