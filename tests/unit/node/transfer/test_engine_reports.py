"""What engines report of a model: the state now, and when each gate was passed."""

from p2pmodel.core.progress.views import GateTimes
from p2pmodel.node.transfer.engine_reports import EngineReports


class Clock:
    now = 100.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def reports() -> EngineReports:
    return EngineReports(lambda: None, clock=Clock())


def test_each_gate_has_the_time_of_its_first_report() -> None:
    engine = reports()
    assert engine.gates == GateTimes()
    engine.complete()
    engine.take("loading")
    engine.take("loaded")
    engine.take("loaded")  # a health check that reports again
    engine.take("answered")
    engine.take("answered")
    assert engine.gates == GateTimes(files=101, loaded=103, answered=105)


def test_an_answer_is_the_word_of_a_model_that_is_loaded() -> None:
    engine = reports()
    engine.take("answered")
    assert engine.gates == GateTimes(loaded=101, answered=101)


def test_the_end_of_an_engine_takes_nothing_back_and_a_new_load_does() -> None:
    engine = reports()
    engine.complete()
    engine.take("answered")
    engine.take("none")
    assert engine.gates == GateTimes(files=101, loaded=102, answered=102)
    engine.take("loading")
    assert engine.gates == GateTimes(files=101)
    engine.take("loaded")
    engine.take("failed")
    assert engine.gates == GateTimes(files=101)


def test_other_files_are_another_model() -> None:
    engine = reports()
    engine.complete()
    engine.take("loaded")
    engine.forget()
    assert engine.gates == GateTimes()
