"""Documents link to what exists, and name modules, scripts, verbs and options that exist."""

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

from p2pmodel.cli.verbs import verbs
from p2pmodel.coordinator.leases.demand import Demand, Grant
from p2pmodel.coordinator.leases.messages import CoordinatorMessage
from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.coordinator.tracker.tracked_swarm import Announce
from p2pmodel.store.state.sync_log import LogEntry

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PACKAGES = {path.stem for path in (ROOT / "p2pmodel").iterdir() if path.stem[0] not in "_." and path.name != "py.typed"}
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def paths_in(document: Path) -> Iterator[Path]:
    """The files and folders of the repository that code spans name. Modules are named from the package on."""
    for span in SPAN.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
        first = span.split()[0].rstrip(",;:") if span.strip() else ""
        top, _, rest = first.partition("/")
        if not rest or not re.fullmatch(r"[\w./-]+", first):
            continue
        if top in ("p2pmodel", "scripts", "tests", "docs"):
            yield ROOT / first
        elif top in PACKAGES and first.endswith((".py", "/")):
            yield ROOT / "p2pmodel" / first


def commands_in(document: Path) -> Iterator[list[str]]:
    """The words of each `p2pmodel ...` command in code spans and code blocks."""
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = [line for block in FENCE.findall(text) for line in block.splitlines()]
    for line in [*blocks, *SPAN.findall(FENCE.sub("", text))]:
        found = re.match(r"(?:\$ )?p2pmodel +([a-z][^#|>;&]*)", line.strip())
        if found:
            yield found[1].split()


def command_of(words: list[str]) -> click.Command:
    """The verb that `words` call. Raises KeyError for a word that is none."""
    command: click.Command = verbs
    with click.Context(command, info_name="p2pmodel") as ctx:
        for word in words:
            if not isinstance(command, click.Group) or word.startswith("-"):
                break
            below = command.get_command(ctx, word)
            if below is None:
                raise KeyError(word)
            command = below
    return command


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_exist(document: Path) -> None:
    for words in commands_in(document):
        command = command_of(words)
        if isinstance(command, click.Group):
            continue
        known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help", "-h"}
        given = {word.partition("=")[0].rstrip(",.") for word in words if re.match(r"-{1,2}[a-zA-Z]", word)}
        assert given <= known, f"{name_of(document)}: p2pmodel {' '.join(words)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), f"{link} in {name_of(document)} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{name_of(target)} has no heading #{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_named_files_exist(document: Path) -> None:
    missing = [str(path.relative_to(ROOT)) for path in paths_in(document) if not path.exists()]
    assert not missing, f"{name_of(document)} names files that do not exist"


def test_the_architecture_describes_every_package() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    packages = {
        name for row in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text, re.MULTILINE) for name in SPAN.findall(row)
    }
    assert packages == PACKAGES


@pytest.mark.parametrize("message", [Announce, Demand, Grant, CoordinatorMessage, Source, LogEntry])
def test_the_protocol_names_every_field(message: type) -> None:
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    known = {name.rpartition(".")[2] for name in SPAN.findall(text)}
    assert {field.name for field in fields(message)} - {"grant"} <= known


def test_the_index_lists_every_decision() -> None:
    folder = ROOT / "docs/adr"
    rows = re.findall(
        r"^\| \[(\d{4})\]\(([^)]+)\) \| (.+) \| (.+) \|$", (folder / "README.md").read_text(), re.MULTILINE
    )
    records = sorted(path.name for path in folder.glob("0*.md"))
    assert [name for _, name, _, _ in rows] == records
    for number, name, title, status in rows:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        assert lines[0] == f"# {int(number)}. {title}"
        assert f"Status: {status}" in lines
        assert name.startswith(number)


def test_raw_figures_have_their_origin() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/benchmarks").glob("*.md"))
    for path in (ROOT / "docs/benchmarks/raw").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert {"rig", "command"} <= record.keys(), path.name
        origins = record.get("points", [record])
        assert all(("commit" in each or "commits" in each) and "date" in each for each in origins), path.name
        assert f"raw/{path.name}" in pages, f"no page shows {path.name}"
