"""Write the reference pages, or check that they match the code."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from scripts.documentation import api, cli, errors, metrics, settings

FOLDER = Path(__file__).resolve().parents[2] / "docs/reference"
PAGES: dict[str, Callable[[], str]] = {
    "settings": settings.text,
    "cli": cli.text,
    "api": api.text,
    "metrics": metrics.text,
    "errors": errors.text,
}


def path_of(name: str) -> Path:
    """Where a page is."""
    return FOLDER / f"{name}.md"


def differing() -> list[str]:
    """The names of pages that are missing or differ from the code."""
    return [name for name, text in PAGES.items() if not path_of(name).is_file() or path_of(name).read_text() != text()]


def main() -> None:
    """Write all pages, or with --check only compare."""
    parser = argparse.ArgumentParser(prog="scripts/reference", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page differs from the code")
    if parser.parse_args().check:
        if found := differing():
            sys.exit(f"docs/reference differs from the code: {', '.join(found)}; run scripts/reference")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in PAGES.items():
        path_of(name).write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
