"""Options that several verbs share, and the settings that they set."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pmodel.cli.at_once import ended_at_once
from p2pmodel.cli.completion import repositories
from p2pmodel.cli.option_types import PathName
from p2pmodel.cli.rollout.options import coordinator
from p2pmodel.cli.terminal import log
from p2pmodel.cli.terminal.console import STYLES, Style
from p2pmodel.config.checks import check_url
from p2pmodel.config.mirrors import keep_one_endpoint
from p2pmodel.config.settings import Settings
from p2pmodel.config.sources import SettingValue, load_settings, notices, settings_values
from p2pmodel.core.content.names import Reference, printable
from p2pmodel.core.notes import LEVELS, Level, warning
from p2pmodel.core.sizes import parse_duration, parse_size
from p2pmodel.errors import InvalidInput
from p2pmodel.node.hub.admission import Admission
from p2pmodel.service.roles.reload import Reload
from p2pmodel.tls import context_with

if TYPE_CHECKING:
    from p2pmodel.coordinator.server.credentials import Credentials

_READ = "p2pmodel.read_settings"
_READ_CREDENTIALS = "p2pmodel.read_credentials"


def common(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config`, `--cache-dir`, `--json`, `-q`, `-v` and `--log-level`, and configure the log.

    The verb receives `settings`, `as_json` and `quiet`.
    """

    @click.option("--config", type=PathName(), help="Settings file (default: ~/.config/p2pmodel/p2pmodel.toml).")
    @click.option("--cache-dir", type=PathName(), help="Hugging Face cache (default: HF_HUB_CACHE).")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="Show errors only, no progress.")
    @click.option("-v", "--verbose", is_flag=True, help="Show debug messages, too.")
    @click.option("--log-level", type=click.Choice(LEVELS), help="Least severe messages to show (default: info).")
    @functools.wraps(verb)
    def wrapped(
        config: Path | None,
        cache_dir: Path | None,
        quiet: bool,
        verbose: bool,
        log_level: Level | None,
        **options: Any,
    ) -> Any:
        level = log_level or ("error" if quiet else "debug" if verbose else None)
        flags = {"cache_dir": cache_dir, "log_level": level} | options.pop("flags", {})
        read = functools.partial(load_settings, config=config, flags=flags | _setting_flags(options))
        with ended_at_once():
            settings = read()
        keep_one_endpoint()
        click.get_current_context().meta[_READ] = read
        log.configure(settings.log_level)
        for line in () if quiet else notices(os.environ, settings.cache_dir):
            log.log(warning("old_variable", line))
        return verb(settings=settings, quiet=quiet, **options)

    return wrapped


def values(settings: Settings) -> list[SettingValue]:
    """The settings of the running verb, each with its source."""
    read = click.get_current_context().meta[_READ]
    return settings_values(settings, **read.keywords)


def reload(settings: Settings, credentials: "Credentials | None" = None) -> Reload:
    """The reloads of the running verb, which is a server with `settings`; the log's level is part of them.

    `credentials`: those of the coordinator that it serves, which change with their token files.
    """
    meta = click.get_current_context().meta
    reloads = Reload(settings, meta[_READ], log.log)
    reloads.setting("log_level", apply=lambda now: log.configure(now.log_level))
    reloads.file("certificate authorities", context_with.cache_clear)
    if credentials is not None:
        reloads.file("token files", lambda: credentials.change(meta[_READ_CREDENTIALS]()))
    return reloads


def progress(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--progress`; the verb receives `style`, which is "none" where the settings say so. Goes below `common`."""

    @click.option(
        "--progress",
        type=click.Choice(STYLES),
        default="auto",
        show_default=True,
        help="Progress style on stderr; files: bar or plain, with each file.",
    )
    @functools.wraps(verb)
    def wrapped(settings: Settings, progress: Style, **options: Any) -> Any:
        style: Style = "none" if progress == "auto" and not settings.progress else progress
        return verb(settings=settings, style=style, **options)

    return wrapped


def origin(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--endpoint`, or `--mirror`, (repeatable) and `--coordinator` (repeatable). Goes above `common`."""
    return coordinator(endpoint(verb))


def endpoint(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--endpoint`, or `--mirror`, (repeatable). Goes above `common`."""
    return click.option(
        "--endpoint",
        "--mirror",
        "_set_endpoints",
        multiple=True,
        metavar="URL|NAME",
        help="Mirror: URL, name in the settings, official, hf-mirror, gitcode or modelscope; repeatable.",
    )(verb)


def upstream(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--upstream` (repeatable), which replaces the mirrors of the settings. Goes above `common`.

    The verb receives `upstream`: whether the option is given.
    """

    @click.option(
        "--upstream",
        multiple=True,
        metavar="URL",
        help="Hub or mirror for what the cache lacks, by URL or name of a setting; repeatable.",
    )
    @functools.wraps(verb)
    def wrapped(upstream: tuple[str, ...], **options: Any) -> Any:
        return verb(upstream=bool(upstream), _set_endpoints=upstream, **options)

    return wrapped


def admission(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--allow` and `--deny` (repeatable); the verb receives `rules`."""

    @click.option(
        "--allow", multiple=True, metavar="PATTERN", help="Accept only matching repositories (Qwen/*); repeatable."
    )
    @click.option("--deny", multiple=True, metavar="PATTERN", help="Refuse matching repositories; repeatable.")
    @functools.wraps(verb)
    def wrapped(allow: tuple[str, ...], deny: tuple[str, ...], **options: Any) -> Any:
        return verb(rules=Admission(allow, deny), **options)

    return wrapped


def sync_log(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--sync-log`; the verb receives `sync_log`, for `sync_log_path`."""
    return click.option(
        "--sync-log",
        type=PathName(),
        help="File with a line for each synced file (default: sync-log.jsonl in the state directory).",
    )(verb)


def sync_log_path(settings: Settings, given: Path | None) -> Path:
    """The path of the sync log: `given`, else the default."""
    return given or (settings.state_dir or settings.cache_dir) / "sync-log.jsonl"


def duration(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Callback for an option with a duration as its value: `72h`, `30m`, `7d` or seconds."""
    return None if value is None else parse_duration(value)


def size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Callback for an option with a byte count as its value: `500GB`, `64MiB` or bytes."""
    return None if value is None else parse_size(value)


def listen(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--swarm-listen`, `--advertise`, `--zone`, `--upload-limit` and `--download-limit`. Goes above `common`."""
    verb = click.option(
        "--zone",
        "_set_swarm__zone",
        metavar="NAME",
        help="Zone (rack or site) of this node; peers of the same zone are preferred.",
    )(verb)
    verb = click.option(
        "--advertise",
        "_set_swarm__advertise",
        multiple=True,
        metavar="ADDRESS[:PORT]",
        help="Address by which peers reach this node (NAT, container, another network); repeatable.",
    )(verb)
    verb = click.option(
        "--swarm-listen",
        "_set_swarm__listen",
        metavar="ADDRESS:PORT",
        help="Address for peer connections (default: the one that reaches the coordinator, port 6881).",
    )(verb)
    verb = click.option(
        "--upload-limit",
        "_set_swarm__upload_limit",
        metavar="SIZE",
        help="Upload limit for all peers, bytes/s or as in 20MB, 24Mbit.",
    )(verb)
    return click.option(
        "--download-limit",
        "_set_swarm__download_limit",
        metavar="SIZE",
        help="Download limit for all sources together, bytes/s or as in 20MB, 24Mbit.",
    )(verb)


def advertise(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--advertise` (repeatable) of a command that serves HTTP. Goes above `common`."""
    return click.option(
        "--advertise",
        "_set_http__advertise",
        multiple=True,
        metavar="ADDRESS[:PORT]",
        help="Address by which clients reach it (NAT, container, proxy); repeatable (default: that of --listen).",
    )(verb)


def credentials(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options with the token files of a coordinator; the verb receives `token_file` and `credentials`."""

    @click.option(
        "--token-file",
        type=PathName(),
        help="File with the token of members: they read, announce, ask for leases and assemble; mode 0600.",
    )
    @click.option(
        "--publish-token-file",
        "publish_token_files",
        type=PathName(),
        multiple=True,
        help="File with the token of a publisher, named after the file's stem; repeatable, mode 0600.",
    )
    @click.option(
        "--admin-token-file",
        type=PathName(),
        help="File with the token of administrators: they may change what publishers have set; mode 0600.",
    )
    @functools.wraps(verb)
    def wrapped(
        token_file: Path | None, publish_token_files: tuple[Path, ...], admin_token_file: Path | None, **options: Any
    ) -> Any:
        from p2pmodel.cli.server_tokens import coordinator_credentials  # noqa: PLC0415 - imports a web server

        read = functools.partial(coordinator_credentials, token_file, publish_token_files, admin_token_file)
        click.get_current_context().meta[_READ_CREDENTIALS] = read
        return verb(token_file=token_file, credentials=read(), **options)

    return wrapped


def public_url(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--public-url`; the verb receives `public_url`, checked."""

    @click.option(
        "--public-url",
        metavar="URL",
        help="URL of the coordinator for peers (behind NAT or a proxy; default: --listen).",
    )
    @functools.wraps(verb)
    def wrapped(public_url: str | None, **options: Any) -> Any:
        try:
            checked = None if public_url is None else check_url(public_url)
        except ValueError as error:
            raise InvalidInput(f"--public-url: {error}") from None
        return verb(public_url=checked, **options)

    return wrapped


def endpoint_url(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--public-url` of a hub endpoint. Goes above `common`."""
    return click.option(
        "--public-url",
        "_set_http__public_url",
        metavar="URL",
        help="URL of the hub endpoint for clients of a reverse proxy, with its path.",
    )(verb)


def socket(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--socket`. Goes above `common`."""
    return click.option("--socket", "_set_daemon__socket", metavar="PATH", help="Unix socket of the daemon.")(verb)


def server(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--socket`, and `--server` with `--ca-file` and `--server-token-file`. Goes above `common`."""
    verb = click.option(
        "--server-token-file",
        "_set_client__token_file",
        type=PathName(),
        help="File with the token for --server; mode 0600.",
    )(verb)
    verb = click.option(
        "--ca-file",
        "_set_client__ca_file",
        type=PathName(),
        help="CA certificates for --server, in addition to the system's.",
    )(verb)
    return click.option(
        "--server", "_set_client__server", metavar="URL", help="URL of a remote daemon (its --control-listen)."
    )(socket(verb))


def local_users(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--allow-local-users`. Goes above `common`."""
    return click.option(
        "--allow-local-users",
        "_set_http__allow_local_users",
        flag_value=True,
        help="Admit all users of this machine over loopback, not only the user of this process and root.",
    )(verb)


def tls(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--tls-cert`, `--tls-key` and `--tls-client-ca`. Goes above `common`."""
    for name, setting, meaning in (
        ("--tls-client-ca", "tls_client_ca", "CA certificates (PEM); each client must have a certificate of one."),
        ("--tls-key", "tls_key", "Private key of the certificate; mode 0600."),
        ("--tls-cert", "tls_certificate", "Certificate (PEM, with its chain) to serve the given addresses over HTTPS."),
    ):
        verb = click.option(name, f"_set_http__{setting}", type=PathName(), help=meaning)(verb)
    return verb


def given(*names: str) -> list[str]:
    """The options among `names` that are on the command line of the running verb."""
    ctx = click.get_current_context()
    by_name = {name: p for p in ctx.command.params for name in p.opts}
    command_line = click.core.ParameterSource.COMMANDLINE
    known = [name for name in names if name in by_name]
    return [name for name in known if ctx.get_parameter_source(str(by_name[name].name)) is command_line]


def refuse_given(what: str, *names: str) -> None:
    """Raise InvalidInput for those of the options `names` that are given: `what` does not take them."""
    if found := given(*names):
        raise InvalidInput(f"{what} takes no {', '.join(found)}")


def reference(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument `REPO[@REV]` and `--revision`; the verb receives `ref`."""

    @click.argument("repo", metavar="REPO[@REV]", shell_complete=repositories)
    @click.option("--revision", help="Branch, tag, refs/pr/N or commit (default: main).")
    @functools.wraps(verb)
    def wrapped(repo: str, revision: str | None, **options: Any) -> Any:
        return verb(ref=Reference.parse(repo, revision=revision), **options)

    return wrapped


def check_output(path: Path | None) -> None:
    """Raise InvalidInput if `path` is a directory or its parent does not exist. Call it before the long work."""
    if path is not None and path.is_dir():
        raise InvalidInput(f"the output {printable(str(path))} is a directory", hint="name a file in it")
    if path is not None and not path.parent.is_dir():
        raise InvalidInput(
            f"there is no directory {printable(str(path.parent))} for the output", hint="create it first"
        )


_PREFIX = "_set_"


def _setting_flags(options: dict[str, Any]) -> dict[str, Any]:
    """Remove the options that set settings from `options`, and return those that are given by key of the setting.

    click needs identifiers, so `__` replaces the dot of a key.
    """
    found = {}
    for name in [n for n in options if n.startswith(_PREFIX)]:
        value = options.pop(name)
        if value not in (None, ()):
            found[name.removeprefix(_PREFIX).replace("__", ".")] = value
    return found
