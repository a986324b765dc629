"""The aiohttp application of `p2pmodel serve`: OpenAI's chat completions, probes, metrics and the chat page."""

import asyncio
import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, get_args

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.errors import BY_STATUS, InvalidField, InvalidInput, P2PModelError, Unavailable
from p2pmodel.http import limits
from p2pmodel.http.error_responses import error_middleware, outward
from p2pmodel.http.exposition import HEALTH, METRICS, Traffic, handle_health, metrics_handler
from p2pmodel.http.static_page import add_page
from p2pmodel.loading.answers.turns import ChatAnswer
from p2pmodel.serving.admission import ServingAdmission
from p2pmodel.serving.answers import AnswerCounts, AnswerQueue, ChatModel, Outcome, RunningAnswer
from p2pmodel.serving.openai import (
    DONE,
    ChatRequest,
    Completion,
    chat_request,
    check_model,
    event,
    failure,
    model_entry,
    retry_after,
)
from p2pmodel.serving.startup import Startup


class ServingMetrics(Collector):
    """The metrics of one server."""

    def __init__(self, startup: Startup, queue: AnswerQueue, counts: AnswerCounts) -> None:
        self._startup = startup
        self._queue = queue
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        ready = self._startup.phase == "ready"
        yield GaugeMetricFamily("p2pmodel_model_ready", "1 once the model answers, 0 before.", value=ready)
        phases = GaugeMetricFamily(
            "p2pmodel_startup_phase_seconds", "Seconds from the start to the beginning of the phase.", labels=["phase"]
        )
        for phase, seconds in self._startup.reached.items():
            phases.add_metric([phase], seconds)
        yield phases
        queue, counts = self._queue, self._counts
        yield GaugeMetricFamily("p2pmodel_answers_running", "Requests that the model answers now.", value=queue.running)
        yield GaugeMetricFamily("p2pmodel_answers_waiting", "Requests that wait for their turn.", value=queue.waiting)
        answers = CounterMetricFamily(
            "p2pmodel_answers", "Answers by their end; left: the client was gone before it.", labels=["outcome"]
        )
        for outcome in get_args(Outcome):
            answers.add_metric([outcome], counts.outcomes[outcome])
        yield answers
        yield CounterMetricFamily("p2pmodel_prompt_tokens", "Tokens of answered prompts.", value=counts.prompt_tokens)
        yield CounterMetricFamily("p2pmodel_generated_tokens", "Tokens of answers.", value=counts.generated_tokens)
        whole = counts.outcomes["stop"] + counts.outcomes["length"]
        for name, meaning, total in (
            ("answer_seconds", "Time of an answer, from its turn to the last token.", counts.seconds),
            ("first_token_seconds", "Time from the turn to the first token.", counts.first_token_seconds),
        ):
            yield SummaryMetricFamily(f"p2pmodel_{name}", meaning, count_value=whole, sum_value=total)


_FOLDER = "page"
_SHARED = "units.js"
_NAMES = (
    "index.html",
    "page.css",
    "icon.svg",
    "main.js",
    "api.js",
    "composer.js",
    "conversations.js",
    "messages.js",
    "pictures.js",
    "startup.js",
    "units.js",
)
PAGE: Mapping[str, str] = {("/" if name == "index.html" else f"/page/{name}"): name for name in _NAMES}
"""The files of the page by path."""


def add_chat_page(app: web.Application) -> None:
    """Add the page to the application of the endpoint. The pictures that it shows are data URLs."""
    add_page(app, {path: page_file(name) for path, name in PAGE.items()}, images="data:")


def page_file(name: str) -> Traversable:
    """A file of the page. Numbers with units are shown by the dashboard's module."""
    if name == _SHARED:
        return files("p2pmodel.service.control") / "dashboard" / name
    return files(__package__) / _FOLDER / name


MAX_BODY = 64 << 20
"""Bound on a request body in bytes: the pictures of a conversation are in it."""

STARTUP = "/startupz"
READY = "/readyz"
LIVE = "/health"
"""As vLLM and SGLang have it: whether the model answers."""
PUBLIC = frozenset((*PAGE, HEALTH, READY, STARTUP, LIVE))
"""Paths that need no right."""

_STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclasses.dataclass(frozen=True, slots=True)
class ServedModel:
    """The model of a server: the name that is shown, all names that clients may use, and the bound on the tokens of an
    answer."""

    name: str
    names: frozenset[str]
    most_tokens: int
    created: float = dataclasses.field(default_factory=time.time)
    """Seconds since 1970."""


class ChatEndpoint:
    """The handlers, and the state behind them: the startup, the queue, the counts, and the model once it is ready."""

    def __init__(
        self, served: ServedModel, startup: Startup, admission: ServingAdmission, *, most_waiting: int
    ) -> None:
        self.startup = startup
        self.admission = admission
        self.queue = AnswerQueue(most_waiting)
        self.counts = AnswerCounts()
        self.answered = asyncio.Event()
        """Set at the first text of the first answer."""
        self._served = served
        self._model: ChatModel | None = None

    def ready(self, model: ChatModel) -> None:
        """Answer with `model` from now on."""
        self._model = model
        self.startup.ready(takes_images=model.takes_images)

    @property
    def repos(self) -> tuple[str, ...]:
        """The repository, as it was requested, and by its name at the hub if that is known and differs."""
        asked, model = self._served.name, self._model
        if model is None or not model.repo or model.repo.lower() == asked.lower():
            return (asked,)
        return (asked, model.repo)

    async def models(self, _request: web.Request) -> web.Response:
        """The only model, with its state."""
        return web.json_response({"object": "list", "data": [self._entry()]})

    async def one_model(self, request: web.Request) -> web.Response:
        """The model of that name."""
        check_model(request.match_info["name"], self._served.names, self._served.name)
        return web.json_response(self._entry())

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a conversation."""
        served, raw = self._served, await request.read()
        asked = await asyncio.to_thread(chat_request, raw, most_tokens=served.most_tokens)
        check_model(asked.model, served.names, served.name)
        self.startup.check_ready()
        model = self._model
        assert model is not None
        if asked.has_pictures and not model.takes_images:
            raise InvalidField(f"messages: {served.name} takes text only", field="messages")
        self.admission.record(request, model.repo or served.name, model.commit)
        async with self.queue.turn():
            try:
                async with RunningAnswer(model, asked.turns, asked.sampling) as running:
                    return await self._respond(request, asked, running)
            except (asyncio.CancelledError, ConnectionError):
                self.counts.broke_off("left")
                raise
            except P2PModelError:
                self.counts.broke_off("failed")
                raise

    async def startup_probe(self, _request: web.Request) -> web.Response:
        """How far the model has come; 200 once it is ready."""
        return self._probe(dataclasses.asdict(self.startup.view()))

    async def ready_probe(self, _request: web.Request) -> web.Response:
        """Whether the model answers."""
        return self._probe({"model": self._served.name, "ready": self.startup.phase == "ready"})

    async def live_probe(self, _request: web.Request) -> web.Response:
        """Whether the model answers, in short."""
        return self._probe({"status": "ok" if self.startup.phase == "ready" else self.startup.phase})

    def _probe(self, plain: dict[str, Any]) -> web.Response:
        status = 200 if self.startup.phase == "ready" else Unavailable.http_status
        return web.json_response(plain, status=status, headers={"Cache-Control": "no-store"})

    def _entry(self) -> dict[str, Any]:
        view = self.startup.view()
        transfer = {"done": view.transfer.done, "total": view.transfer.total}
        return model_entry(self._served.name, self._served.created, {"state": view.phase, "transfer": transfer})

    async def _respond(self, request: web.Request, asked: ChatRequest, running: RunningAnswer) -> web.StreamResponse:
        completion = Completion.new(self._served.name, time.time())
        if not asked.stream:
            answer = await running.whole()
            self._ended(answer)
            return web.json_response(completion.whole(answer))
        texts = running.texts()
        # The response begins with the first part: a failure before it has a status of its own.
        part = await anext(texts, None)
        if part is None:
            await running.whole()
        response = web.StreamResponse(headers=_STREAM_HEADERS)
        await response.prepare(request)
        await response.write(completion.first())
        while part is not None:
            self.answered.set()
            is_thinking, text = part
            await response.write(completion.text(text, is_thinking=is_thinking))
            part = await anext(texts, None)
        try:
            answer = await running.whole()
        except P2PModelError as error:
            self.counts.broke_off("failed")
            await response.write(event(failure(outward(request, error))) + DONE)
            return response
        await response.write(completion.last(answer, with_usage=asked.include_usage))
        self._ended(answer)
        return response

    def _ended(self, answer: ChatAnswer) -> None:
        self.answered.set()
        self.counts.ended(answer)


def endpoint_app(endpoint: ChatEndpoint, traffic: Traffic, *, http: HttpSettings) -> web.Application:
    """The application. `http`: the request limits."""
    admission = endpoint.admission.middleware(lambda: endpoint.repos, PUBLIC)
    checks = [*limits.rate(http), admission, limits.body(http.body_timeout)]
    errors = [_http_errors, error_middleware(_error_response)]
    app = web.Application(client_max_size=MAX_BODY, middlewares=[*errors, *checks])
    metrics = ServingMetrics(endpoint.startup, endpoint.queue, endpoint.counts)

    async def collecting() -> Iterable[Collector]:
        return metrics, traffic

    app.add_routes(
        [
            web.get("/v1/models", endpoint.models),
            web.get("/v1/models/{name:.+}", endpoint.one_model),
            web.post("/v1/chat/completions", endpoint.chat),
            web.get(HEALTH, handle_health),
            web.get(LIVE, endpoint.live_probe),
            web.get(READY, endpoint.ready_probe),
            web.get(STARTUP, endpoint.startup_probe),
            web.get(METRICS, metrics_handler(collecting)),
        ]
    )
    add_chat_page(app)
    return traffic.watch(app, "serve")


def _error_response(error: P2PModelError, status: int | None = None) -> web.Response:
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else {}
    seconds = retry_after(error)
    if seconds is not None:
        headers["Retry-After"] = str(seconds)
    return web.json_response(failure(error), status=status or error.http_status, headers=headers)


@web.middleware
async def _http_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors of aiohttp itself (no such path, a body too large) in the same format."""
    try:
        return await handler(request)
    except web.HTTPError as error:
        kind = BY_STATUS.get(error.status, InvalidInput)
        response = _error_response(kind(f"{error.reason} ({error.status})"), error.status)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
