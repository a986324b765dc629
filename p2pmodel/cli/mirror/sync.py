"""`p2pmodel mirror sync` and `log`: download whole snapshots into the cache, and verify the sync log of a mirror."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.option_types import PathName
from p2pmodel.cli.secret_files import mirror_token
from p2pmodel.cli.signals import run_interruptible, run_service
from p2pmodel.cli.terminal.console import Style, reporting
from p2pmodel.cli.terminal.output import echo, result
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference, printable
from p2pmodel.core.sizes import counted, human
from p2pmodel.errors import InvalidInput
from p2pmodel.node.hub.admission import Admission
from p2pmodel.node.hub.sync import MirrorSync, SyncResult
from p2pmodel.node.hub.sync_log_check import check_log
from p2pmodel.store.state.sync_log import SyncLog

INTERRUPTED = "interrupted; what was verified is kept: run the same command again"


@click.command()
@click.argument("repos", metavar="[REPO[@REV]]...", nargs=-1)
@click.option(
    "--list",
    "list_file",
    type=PathName(),
    help="File with one REPO[@REV] a line; read again for each round.",
)
@click.option(
    "--every", callback=options.duration, metavar="TIME", help="Repeat until stopped, one round every TIME (6h)."
)
@options.sync_log
@options.admission
@options.origin
@options.common
@options.progress
def sync(
    *,
    settings: Settings,
    repos: tuple[str, ...],
    list_file: Path | None,
    every: float | None,
    rules: Admission,
    sync_log: Path | None,
    style: Style,
    as_json: bool,
    quiet: bool,
) -> None:
    """Download whole snapshots into the cache, only files that changed, and print their paths.

    Revisions are resolved at the mirrors of the settings, or at --endpoint. With --json prints one object a line.
    """
    listed = _listed(repos, list_file)
    refs = listed()
    with reporting(style, quiet=quiet) as screen:

        def show(done: SyncResult) -> None:
            with screen.aside():
                if as_json:
                    echo(json.dumps(_plain(done)))
                else:
                    result(str(done.path))
                if not quiet and not as_json:
                    echo(_words(done), err=True)

        log = SyncLog(options.sync_log_path(settings, sync_log))
        syncing = MirrorSync(settings, screen, show, rules=rules, log=log)
        if every is None:
            run_interruptible(syncing.once(refs), interrupted=INTERRUPTED)
        elif every < 1:
            raise InvalidInput("--every must be at least one second", hint="for example --every 6h")
        else:
            run_service(syncing.every(every, listed), interrupted=INTERRUPTED, reload=options.reload(settings))


def _listed(repos: tuple[str, ...], list_file: Path | None) -> Callable[[], Sequence[Reference]]:
    """A function that returns the references to sync; it reads `list_file` again at each call."""
    if not repos and list_file is None:
        raise InvalidInput("there is nothing to sync", hint="give REPO[@REV] arguments or --list")
    named = [Reference.parse(text) for text in repos]

    def read() -> Sequence[Reference]:
        return list(dict.fromkeys([*named, *(_read(list_file) if list_file else [])]))

    return read


def _read(path: Path) -> list[Reference]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InvalidInput(f"the list {printable(str(path))} cannot be read: {reason}") from None
    stripped = (line.partition("#")[0].strip() for line in lines)
    return [Reference.parse(text) for text in stripped if text]


def _plain(done: SyncResult) -> dict[str, object]:
    return {
        "repo": str(done.manifest.repo),
        "revision": done.ref.revision,
        "commit": done.manifest.commit,
        "before": done.before,
        "path": str(done.path),
        "size": done.manifest.total_size,
        "from_mirrors": done.downloaded,
        "from_cache": done.adopted,
        "seconds": round(done.seconds, 3),
    }


def _words(done: SyncResult) -> str:
    if done.before == done.manifest.commit and not done.downloaded:
        return f"{done.ref} is unchanged ({done.manifest.commit[:12]})"
    return f"{done.ref} is {done.manifest.commit[:12]} now: {human(done.downloaded)} downloaded in {done.seconds:.1f} s"


@click.group()
def log() -> None:
    """Verify the sync log: one line for each file synced from upstream, chained by hashes."""


@log.command()
@click.argument("where", metavar="[FILE|URL]", required=False)
@click.option(
    "--expect", metavar="HASH", help="Hash of the last line at an earlier check; a line of the log must have it."
)
@click.option("--token-file", type=PathName(), help="File with the token of the mirror.")
@click.option("--token-env", metavar="NAME", help="Environment variable with the token of the mirror.")
@options.common
def verify(
    *,
    settings: Settings,
    where: str | None,
    expect: str | None,
    token_file: Path | None,
    token_env: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Verify every line of a sync log: this machine's, FILE, or that of a mirror (URL of its /sync-log).

    Prints the hash of the last line. A later check with --expect and that hash shows that no line up to there was
    changed, removed or added. Exits with code 5 and the number of the first wrong line.
    """
    place = where or str(options.sync_log_path(settings, None))
    token = mirror_token(token_file, token_env)
    if expect is not None and not re.fullmatch("[0-9a-f]{64}", expect):
        raise InvalidInput("--expect needs a hash of 64 hex digits", hint="use the hash that this command prints")
    check = check_log(place, token, expect=expect, proxies=settings.origin.proxies)
    head = run_interruptible(check, interrupted="interrupted")
    echo(json.dumps({"lines": head.seq, "head": head.hash}) if as_json else head.hash)
    if not quiet and not as_json:
        echo(f"{counted(head.seq, 'line')}, none changed", err=True)
