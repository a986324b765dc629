"""What is reported of a model, and until when."""

import asyncio
from dataclasses import dataclass, field

import pytest

from p2pmodel.cli.serving.fetched_model import FetchedModel, ModelReports, ReportedModel, _reported
from p2pmodel.core.progress.views import EngineState
from p2pmodel.errors import IntegrityError, P2PModelError
from p2pmodel.node.reporter import Reporter
from p2pmodel.serving.startup import Startup
from tests.support.chat_models import ScriptedModel


@dataclass
class RecordedReports(ModelReports):
    states: list[EngineState] = field(default_factory=list)
    errors: list[P2PModelError] = field(default_factory=list)

    async def report(self, state: EngineState, error: P2PModelError | None = None) -> None:
        self.states.append(state)
        self.errors += [error] if error else []


@dataclass
class ReadyFetch:
    """A fetch that has its model already."""

    brought: ReportedModel

    async def bring(self, reporter: Startup, *, on_verified, on_progress) -> ReportedModel:
        on_verified()
        return self.brought


async def test_a_served_model_is_reported_until_it_is_gone() -> None:
    reports, loaded = RecordedReports(), []
    brought = ReportedModel(ScriptedModel(), reports)
    source, startup = FetchedModel(ReadyFetch(brought), loaded.append), Startup("org/model", Reporter())
    assert await source.bring(startup) is brought.model
    assert (startup.phase, loaded) == ("loading", [brought.model])
    staying = asyncio.create_task(source.stay())
    await source.first_answer()
    await asyncio.sleep(0)
    staying.cancel()
    await asyncio.wait([staying])
    assert reports.states == ["answered", "none"]


async def test_a_model_that_is_not_loaded_is_reported_with_the_reason() -> None:
    reports, error = RecordedReports(), IntegrityError("a weight file is damaged")

    async def loading():
        def model():
            raise error

        return model

    with pytest.raises(IntegrityError):
        await _reported(loading(), reports)
    assert (reports.states, reports.errors) == (["failed"], [error])
