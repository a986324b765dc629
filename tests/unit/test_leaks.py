"""The check for leaks of tests finds each kind of leak."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.eventually import PATIENCE

ROOT = Path(__file__).parents[2]

LEAKING = """
import asyncio, subprocess, sys, threading, time
import pytest
from tests.support import leaks
from tests.support.leaks import no_leaks

leaks.GRACE = 0.5
kept = []

def test_file():
    kept.append(open(__file__))

def test_socket():
    import socket
    kept.append(socket.socket())

def test_thread():
    threading.Thread(target=time.sleep, args=(5,), name="sleeper", daemon=True).start()

def test_child():
    kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(5)"]))

async def test_task():
    kept.append(asyncio.create_task(asyncio.sleep(5), name="sleeping"))
    await asyncio.sleep(0)

def test_task_of_a_loop_of_its_own():
    async def main():
        kept.append(asyncio.create_task(asyncio.sleep(5), name="lost"))
        await asyncio.sleep(0)
    asyncio.run(main())

async def test_good():
    with open(__file__) as file:
        await asyncio.to_thread(file.read)
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
    subprocess.run([sys.executable, "-c", ""], check=True)

def test_a_thread_on_its_way_out_is_none():
    threading.Thread(target=time.sleep, args=(0.02,)).start()

def test_garbage_is_none():
    class Cycle:
        def __init__(self):
            self.me, self.file = self, open(__file__)
    with pytest.warns(ResourceWarning):
        Cycle()
        import gc; gc.collect()

@pytest.fixture(scope="module")
def file_of_the_module():
    with open(__file__) as file:
        yield file

def test_what_a_wider_fixture_holds_is_none(file_of_the_module):
    pass
"""

EXPECTED = {
    "test_file": r"open \d+: .*test_leaking\.py",
    "test_socket": r"open \d+: socket:",
    "test_thread": "thread sleeper",
    "test_child": "child processes .*time.sleep",
    "test_task": "Task .*name='sleeping'",
    "test_task_of_a_loop_of_its_own": "Task .*name='lost'",
}


def test_leaks_are_found_and_other_tests_pass(tmp_path: Path) -> None:
    (tmp_path / "test_leaking.py").write_text(LEAKING)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-rfE"]
    command += ["-c", str(ROOT / "pyproject.toml"), str(tmp_path / "test_leaking.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=4 * PATIENCE, check=False)
    failed = re.findall(r"^(?:ERROR|FAILED) \S*::(\w+)", done.stdout, re.MULTILINE)
    assert sorted(failed) == sorted(EXPECTED), done.stdout
    for what in EXPECTED.values():
        assert re.search(r"the test left behind:\n(E .*\n)*?E .*" + what, done.stdout), (what, done.stdout)
