"""Fixtures every test may use, and the rule for tests that drive a Debian program."""

import os
import shutil
import signal
from collections.abc import Iterator

import hypothesis
import pytest

# One thread each: several test processes share the cores, and tiny models gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The duration of an example depends on the load of the machine.
hypothesis.settings.register_profile("without deadline", deadline=None)
hypothesis.settings.load_profile("without deadline")

STRICT = os.environ.get("P2PMODEL_TEST_STRICT") == "1"


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for program in mark.args:
            if shutil.which(program) is None:
                message = f"needs the program {program} (apt-get install it)"
                if STRICT:
                    pytest.fail(message)
                pytest.skip(message)


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """`p2pmodel.cli.main` ends the process and its signal handling; a test that calls it restores both."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


pytest_plugins = ["tests.support.command_line", "tests.support.processes", "tests.support.ssh_hosts"]
