"""`p2pmodel serve`: fetch a model, load it, and answer requests in the format of the OpenAI API."""

import json
from contextlib import ExitStack
from typing import Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.fetch.options import load_options, load_options_of
from p2pmodel.cli.option_types import Count, PathName
from p2pmodel.cli.rollout.options import node_name
from p2pmodel.cli.secret_files import tls_context
from p2pmodel.cli.server_tokens import server_token
from p2pmodel.cli.serving.fetched_model import FetchedModel, ModelFetch
from p2pmodel.cli.signals import run_service
from p2pmodel.cli.terminal.console import ConsoleReporter, reporting
from p2pmodel.cli.terminal.output import echo
from p2pmodel.config.settings import Settings
from p2pmodel.core import notes
from p2pmodel.core.content.names import Reference
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.sizes import human
from p2pmodel.http.server import check_exposure
from p2pmodel.service.roles.client_access import authoriser_of, clients_of
from p2pmodel.serving.answers import LoadedChatModel
from p2pmodel.serving.endpoint import ServedModel
from p2pmodel.serving.model_server import ModelServer, ServingRole
from p2pmodel.serving.startup import Startup

DEFAULT_LISTEN = "127.0.0.1:8000"


@click.command()
@click.option(
    "--listen", default=DEFAULT_LISTEN, show_default=True, metavar="ADDRESS:PORT", help="Address to listen on."
)
@click.option("--api-key-file", type=PathName(), help="File with the key that clients must send; mode 0600.")
@load_options
@click.option(
    "--max-new-tokens",
    type=Count(min=1),
    default=4096,
    show_default=True,
    help="Bound on the tokens of an answer, also where a request has none.",
)
@click.option(
    "--max-waiting",
    type=Count(min=0),
    default=16,
    show_default=True,
    help="Requests that may wait for their turn; further ones get 429.",
)
@click.option("--no-daemon", is_flag=True, help="Download in this process even if a daemon runs.")
@options.reference
@options.tls
@options.local_users
@options.socket
@node_name
@options.listen
@options.origin
@options.common
@options.progress
def serve(settings: Settings, ref: Reference, **flags: Any) -> None:
    """Fetch a model, load it, and serve it: OpenAI's chat completions and a chat page.

    It listens at once. Until the model answers, requests get 503 with the progress, which the page shows, too. It
    answers one request at a time. Clients need the key, or by the rules of the settings the right to infer. With --json
    one line appears on stdout once it listens. SIGTERM ends it with exit code 0, Ctrl-C with 130.
    """
    fetch = ModelFetch(settings, ref, load_options_of(flags), flags["no_daemon"])
    fetch.check()
    address = ListenAddress.parse(flags["listen"])
    reload = options.reload(settings)
    key, tls = server_token(flags["api_key_file"], reload), tls_context(settings.http, reload)
    protected = key is not None or (tls is not None and settings.http.asks_for_certificates)
    authoriser = authoriser_of(settings, reload)
    check_exposure(address, protected=protected or authoriser.protects, insecure_public=None)
    served = ServedModel(str(ref.repo), frozenset((str(ref.repo), str(ref))), flags["max_new_tokens"])
    role = ServingRole(address, served, flags["max_waiting"], key, tls)
    with ExitStack() as stack:
        screen = stack.enter_context(reporting(flags["style"], quiet=flags["quiet"]))
        ready = _ReadyServer(screen, served.name, stack, as_json=flags["as_json"])
        source = FetchedModel(fetch, ready.loaded, screen.loading)

        async def work() -> None:
            async with clients_of(settings, f"serve-{address.port}", authoriser) as clients:
                server = ModelServer(role, settings.http, screen.note, clients)
                startup = Startup(served.name, screen)
                await server.run(startup, source, on_listening=ready.listening, on_ready=ready.ready)

        run_service(work(), interrupted="the server was stopped", reload=reload)


class _ReadyServer:
    """Prints what the server has come to. The progress bar ends once the model is ready."""

    def __init__(self, screen: ConsoleReporter, name: str, bar: ExitStack, *, as_json: bool) -> None:
        self._screen = screen
        self._name = name
        self._bar = bar
        self._as_json = as_json

    def listening(self, url: str) -> None:
        if self._as_json:
            with self._screen.aside():
                echo(json.dumps({"url": url, "api": f"{url}/v1", "model": self._name}))
        text = f"listening at {url}; the page there shows the progress"
        self._screen.note(notes.info("endpoint_listening", text, url=url))

    def loaded(self, model: LoadedChatModel) -> None:
        self._screen.note(notes.info("model_loaded", loaded_line(model), seconds=round(model.loaded.seconds, 3)))

    def ready(self, url: str) -> None:
        text = f"{self._name} answers at {url} (OpenAI API: {url}/v1)"
        self._screen.note(notes.info("model_ready", text, url=url, model=self._name))
        self._bar.close()


def loaded_line(model: LoadedChatModel) -> str:
    """The loaded model, as one line."""
    loaded = model.loaded
    size, after = human(loaded.weight_bytes), loaded.after_download_seconds
    end = f" in {loaded.seconds:.2f} s" if after is None else f", {after:.2f} s after the last file was verified"
    beside = f"; {loaded.beside}" if loaded.beside else ""
    return f"loaded {loaded.architecture}, {size}, onto {loaded.device}{end}{beside}"
