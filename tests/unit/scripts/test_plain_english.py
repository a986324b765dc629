"""The language check: what it finds, what it passes, and that the held paths are clean."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_spec = importlib.util.spec_from_file_location("plain_english", ROOT / "scripts" / "plain_english.py")
assert _spec
assert _spec.loader
plain_english = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plain_english)


def found(folder: Path, text: str, file: str = "module.py") -> list[tuple[int, str]]:
    (folder / file).write_text(text)
    return [(line, problem.partition(":")[0]) for _, line, problem in plain_english.findings(folder)]


@pytest.mark.parametrize(
    "text",
    [
        '"""Who may connect."""',
        "x = 1\n# nobody reads it",
        'x = 1\n"""Whose it is."""',
        'raise InvalidInput("somebody else has it")',
        'raise InvalidInput("it is taken", hint=f"ask {x} who has it")',
        'note(f"{x} tells everybody")',
        'click.option("--x", help="Address of whoever connects.")',
        "def test_nobody_waits() -> None: ...",
        'assert x, "nobody has it"',
    ],
)
def test_a_person_as_the_subject_is_found(tmp_path: Path, text: str) -> None:
    (line, word), *others = found(tmp_path, text)
    assert line == len(text.splitlines())
    assert word.strip("'").lower() in text.lower()
    assert others == []


@pytest.mark.parametrize("text", ['click.option("--x", help="No period")', 'click.option("--x", help="Two\\nlines.")'])
def test_a_help_text_is_one_line_with_a_period(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text) == [(1, "a help text is one line and ends with a period")]


@pytest.mark.parametrize(
    "text",
    [
        '"""Clients that may connect, and the whole rest."""',
        'x = "nobody:x:65534:65534"',
        'click.option("--x", help="Address of the peer.")',
        "def nobody() -> None: ...",
    ],
)
def test_plain_sentences_and_data_pass(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text) == []


def test_documents_are_checked_outside_of_code(tmp_path: Path) -> None:
    text = "# Title\n\n```\nsu nobody\n```\n\nNobody reads it.\n"
    assert found(tmp_path, text, "page.md") == [(7, "'Nobody'")]


def test_the_held_paths_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain_english.main([]) == 0, capsys.readouterr().out
