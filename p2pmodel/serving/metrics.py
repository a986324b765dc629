"""The Prometheus metrics of a served model. Nothing is counted here."""

from collections.abc import Iterator
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from p2pmodel.serving.answers import AnswerCounts, AnswerQueue, Outcome
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
