"""Locks between processes hold where flock works, where it is missing, and where it locks out nothing."""

import errno
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pmodel.errors import Unavailable
from p2pmodel.store import process_locks as module
from p2pmodel.store.process_locks import EXPIRES_AFTER, LockSearch, ProcessLock, _began, holder_in, process_lock
from tests.support.disks import two_hosts
from tests.support.eventually import PATIENCE

__all__ = ["two_hosts"]

HOLDER = """
import sys, time
from pathlib import Path
from p2pmodel.store.process_locks import LockSearch

if sys.argv[2] == "without":
    import errno, fcntl
    def flock(descriptor, how):
        raise OSError(errno.ENOSYS, "Function not implemented")
    fcntl.flock = flock
lock = LockSearch(Path(sys.argv[1])).take()
print("held" if lock else "busy", flush=True)
sys.stdin.readline()
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "some.lock"


@pytest.fixture(params=["flock", "locks nothing", errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_descriptor: int, _how: int) -> None:
        if request.param != "locks nothing":
            raise OSError(request.param, os.strerror(request.param))

    if request.param != "flock":
        monkeypatch.setattr(fcntl, "flock", flock)


def taken(search: LockSearch) -> ProcessLock:
    lock = search.take()
    assert lock is not None, search.holder
    return lock


@contextmanager
def held_by_another_process(path: Path, flock: str = "with") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(path), flock]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.usefixtures("file_system")
def test_one_process_holds_it_and_is_named(path: Path) -> None:
    lock, other = taken(LockSearch(path)), LockSearch(path)
    assert other.take() is None
    assert str(other.holder) == f"process {os.getpid()} on {module.host_name()}"
    assert other.waits_for() == f"{path}, held by {other.holder}"
    lock.release()
    taken(other).release()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("flock", ["with", "without"])
def test_a_killed_process_of_this_machine_gives_it_up_at_once(path: Path, monkeypatch: pytest.MonkeyPatch, flock: str):
    def missing(_descriptor: int, _how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if flock == "without":
        monkeypatch.setattr(fcntl, "flock", missing)
    search = LockSearch(path)
    with held_by_another_process(path, flock) as process:
        assert search.take() is None
        assert search.holder is not None
        assert search.holder.pid == process.pid
    lock = taken(search)
    assert lock.passed_over is None
    lock.release()


@pytest.mark.needs("bindfs", "fusermount3")
def test_machines_with_a_network_disk_lock_each_other_out(two_hosts: tuple[Path, Path]) -> None:
    here, there = (host / "locks" / "some.lock" for host in two_hosts)
    with held_by_another_process(there) as process:
        descriptor = os.open(here, os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it does not lock out this machine
        os.close(descriptor)
        search = LockSearch(here)
        assert search.take() is None
        assert search.holder is not None
        assert search.holder.pid == process.pid
        assert search.may_expire
    taken(search).release()


def foreign(path: Path, text: str = "17\nnode-07\nanother-kernel 1 2\nf00d\n") -> Path:
    record = path.with_name("some.holder.lock")
    record.parent.mkdir(exist_ok=True)
    record.write_text(text)
    return record


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("text", ["17\nnode-07\nanother-kernel 1 2\nf00d\n", "17\nnode-07\n", "", "nonsense"])
def test_a_holder_elsewhere_is_passed_over_once_it_gives_no_sign_of_life(path: Path, clock: Clock, text: str) -> None:
    record, search = foreign(path, text), LockSearch(path, clock=clock)
    os.utime(record, (1, 1))  # an old time alone says nothing: clocks differ
    assert search.take() is None
    assert search.holder == holder_in(text)
    clock.now += EXPIRES_AFTER - 1
    assert search.take() is None
    os.utime(record)  # it is renewed
    clock.now += EXPIRES_AFTER - 1
    assert search.take() is None
    clock.now += EXPIRES_AFTER
    lock = taken(search)
    assert lock.passed_over is not None
    assert str(lock.passed_over) == ("process 17 on node-07" if holder_in(text) else "process 0 on another machine")
    lock.release()


def test_another_container_of_this_machine_is_judged_by_its_flock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign(path, f"1\npod-a\n{module.boot_id()} 4026531999 123\nf00d\n")
    lock = taken(LockSearch(path))
    assert lock.passed_over is None
    lock.release()
    foreign(path, f"1\npod-a\n{module.boot_id()} 4026531999 123\nf00d\n")

    def missing(_descriptor: int, _how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)
    assert LockSearch(path).take() is None


def test_a_holder_that_was_passed_over_is_told_and_leaves_the_other_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEW_EVERY", 0.01)
    lock = taken(LockSearch(path))
    record = foreign(path)
    assert lock.lost.wait(PATIENCE)
    lock.release()
    assert record.read_text().startswith("17\n")


def test_a_record_that_was_removed_is_made_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_EVERY", 0.01)
    lock = taken(LockSearch(path))
    record = path.with_name("some.holder.lock")
    record.unlink()
    until(record.exists)
    assert not lock.lost.is_set()
    lock.release()


def test_it_is_renewed_while_it_is_held(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_EVERY", 0.01)
    lock = taken(LockSearch(path))
    record = path.with_name("some.holder.lock")
    os.utime(record, (1, 1))
    until(lambda: record.stat().st_mtime > 1)
    lock.release()
    assert not record.exists()


def test_a_record_that_took_the_place_of_an_expired_one_goes_back(path: Path, clock: Clock, monkeypatch) -> None:
    record, search = foreign(path), LockSearch(path, clock=clock)
    assert search.take() is None
    clock.now += EXPIRES_AFTER
    look = module._look

    def look_too_early(place: Path):
        sight = look(place)
        if place == record:
            foreign(path, "18\nnode-08\n")  # a quicker one has removed it, and has the lock
        return sight

    monkeypatch.setattr(module, "_look", look_too_early)
    assert search.take() is None
    assert record.read_text() == "18\nnode-08\n"
    assert sorted(each.name for each in path.parent.iterdir()) == ["some.holder.lock", "some.lock"]


def test_a_wait_ends_with_the_file_the_holder_and_what_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENOUGH_TO_EXPIRE", 0.0)
    foreign(path)
    with (
        pytest.raises(Unavailable, match=f"process 17 on node-07 has held {path} for 0 seconds; let it finish or stop"),
        process_lock(path, 0.0),
    ):
        raise AssertionError("the lock was taken")


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_process_that_has_ended_has_no_start_even_if_its_parent_has_not_noticed() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert _began(child.pid)
        child.kill()
        deadline = time.monotonic() + PATIENCE
        while _began(child.pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert Path(f"/proc/{child.pid}/stat").exists(), "it is a zombie"
    finally:
        child.communicate()
