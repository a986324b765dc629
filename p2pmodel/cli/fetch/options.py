"""Options of `p2pmodel fetch` that users of `hf download` know, and those of commands that load a model.

A test compares the two helps: LEFT_OUT has the options that `fetch` refuses, or accepts without an effect, with the
reason.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from p2pmodel.cli.option_types import Count, PathName
from p2pmodel.cli.terminal.output import echo
from p2pmodel.core.content.manifest import exact_pattern
from p2pmodel.core.content.names import DATASETS, MODELS, SPACES, Reference, RepoId, hub_page
from p2pmodel.errors import InvalidInput
from p2pmodel.loading.options import ATTENTIONS, DEVICE_MAPS, DTYPES, LoadOptions
from p2pmodel.node.snapshot.target import parse_target

LEFT_OUT = {
    "--max-workers": "the number of connections follows from the measured rates",
    "--no-truncate": "there are no tables to truncate",
    "--resume-download": "downloads always resume",
    "--local-dir-use-symlinks": "files in --local-dir are copies, which share their blocks where the file system can",
    "--token": "other users can read a command line: set HF_TOKEN, or log in with 'hf auth login'",
}
_KINDS = {"model": MODELS, "dataset": DATASETS, "space": SPACES}
_PATTERNS = ("--include", "--exclude")


class HubCommand(click.Command):
    """A command with several patterns after one `--include` or `--exclude`, once REPO was given: `--include A B`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each further pattern."""
        return super().parse_args(ctx, _spread(args, self._options_with_values(ctx)))

    def _options_with_values(self, ctx: click.Context) -> frozenset[str]:
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        return frozenset(name for each in options if not (each.is_flag or each.count) for name in each.opts)


def _spread(args: list[str], with_values: frozenset[str]) -> list[str]:
    spread: list[str] = []
    pattern, named, value = "", False, False
    for index, arg in enumerate(args):
        if arg == "--":
            return spread + args[index:]
        if value:
            value = False
        elif arg.startswith("-") and arg != "-":
            value = arg in with_values
            pattern = arg if arg in _PATTERNS and named else ""
        elif pattern and args[index - 1] != pattern:
            spread.append(pattern)
        else:
            named = True
        spread.append(arg)
    return spread


def hub_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments FILENAMES and the options of `hf download`; the verb receives `include`, `exclude`,
    `filenames`, `local_dir` and `force_download`. Goes above `common`."""

    @click.argument("filenames", metavar="[FILENAMES]...", nargs=-1)
    @click.option("--include", multiple=True, metavar="PATTERN...", help="Download only matching files; repeatable.")
    @click.option("--exclude", multiple=True, metavar="PATTERN...", help="Skip matching files; repeatable.")
    @click.option(
        "--local-dir",
        type=PathName(),
        metavar="DIR",
        help="Also copy the files to this folder, in the layout of 'hf download'.",
    )
    @click.option("--force-download", is_flag=True, help="Hash the files in the cache again; replace damaged ones.")
    @click.option(
        "--repo-type",
        "--type",
        type=click.Choice([*_KINDS, "kernel"]),
        help="Kind of the repository; as well as datasets/ or spaces/ before its name (default: model).",
    )
    @click.option("--format", "layout", type=click.Choice(["auto", "human", "agent", "json", "quiet"]), hidden=True)
    @click.option("--token", hidden=True)
    @click.option("--max-workers", type=Count(), hidden=True)
    @click.option("--no-truncate", is_flag=True, hidden=True)
    @click.option("--resume-download", is_flag=True, hidden=True)
    @click.option("--local-dir-use-symlinks", hidden=True)
    @click.option("--no-force-download", is_flag=True, hidden=True)
    @click.option("--no-dry-run", is_flag=True, hidden=True)
    @functools.wraps(verb)
    def wrapped(repo_type: str | None, layout: str | None, token: str | None, **options: Any) -> Any:
        page = hub_page(options["target"])
        if repo_type is not None:
            options["target"] = _of_kind(options["target"], repo_type)
        if page is not None and page.file:
            options["filenames"] = (page.file, *options["filenames"])
        if token is not None:
            raise InvalidInput("--token is not accepted", hint=LEFT_OUT["--token"])
        options["as_json"] = options["as_json"] or layout == "json"
        options["quiet"] = options["quiet"] or layout == "quiet"
        _drop_ignored(options)
        options["include"] += tuple(map(exact_pattern, options["filenames"]))
        return verb(**options)

    return wrapped


def _of_kind(target: str, repo_type: str) -> str:
    """`target` as a repository of the kind that `--repo-type` gives."""
    if repo_type not in _KINDS:
        raise InvalidInput(f"fetch takes no {repo_type} repositories", hint="'hf download' does")
    kind = _KINDS[repo_type]
    found = parse_target(target)
    if not isinstance(found, Reference):
        raise InvalidInput("--repo-type goes with a repository, not with a torrent")
    if found.repo.kind not in (MODELS, kind):
        raise InvalidInput(f"{found.repo} and --repo-type {repo_type} disagree", hint="give the kind once")
    name, at, revision = target.removeprefix("hf://").removeprefix("models/").partition("@")
    if "://" in target.removeprefix("hf://") or found.repo.kind == kind:
        return target
    return f"{RepoId.of_kind(kind, name)}{at}{revision}"


def _drop_ignored(options: dict[str, Any]) -> None:
    """Remove the options without an effect, and say why they have none."""
    for option, reason in LEFT_OUT.items():
        if options.pop(option[2:].replace("-", "_"), None) and not options["quiet"]:
            echo(f"{option} has no effect: {reason}", err=True)
    del options["no_force_download"], options["no_dry_run"]


C = TypeVar("C", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--allow-pickle", is_flag=True, help="Also load pytorch_model.bin where there are no safetensors."),
    click.option("--device", help="Device to load on (default: cuda if present, else cpu)."),
    click.option(
        "--device-map", type=click.Choice(DEVICE_MAPS), help="Spread the layers over several devices in this way."
    ),
    click.option(
        "--dtype", type=click.Choice(DTYPES), default="auto", show_default=True, help="Type of the weights in memory."
    ),
    click.option("--attn", type=click.Choice(ATTENTIONS), help="Attention implementation (default: the library's)."),
)


def load_options(command: C) -> C:
    """Add the options to `command`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def load_options_of(flags: dict[str, Any]) -> LoadOptions:
    """The options of one run."""
    return LoadOptions(
        device=flags["device"],
        dtype=flags["dtype"],
        device_map=flags["device_map"],
        attn=flags["attn"],
        allow_pickle=flags["allow_pickle"],
    )
