"""Marks on blobs: a clock that is set back keeps no mark for longer than it was meant to last."""

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.store.private_folder import PrivateFolder
from p2pmodel.store.state.blob_marks import BlobMarks

FILE = ManifestFile("config.json", 2, "a" * 40)


class Calendar:
    """A clock that can be set."""

    def __init__(self) -> None:
        self.now = 1.5e9

    def __call__(self) -> float:
        return self.now


def marked(root: Path, clock: Calendar) -> BlobMarks:
    """A mark on FILE as of `clock`."""
    (root / "models--org--model").mkdir(parents=True)
    private = PrivateFolder(root, "models--org--model")
    marks = BlobMarks(private, "corrupt", clock=clock)
    marks.set(FILE)
    os.utime(private.existing / "corrupt" / FILE.etag, (clock.now, clock.now))
    return marks


@given(st.integers(-(10**8), 10**8), st.integers(0, 10**6))
def test_no_clock_makes_a_mark_younger_than_the_time_since_the_first_look(jump: int, passed: int) -> None:
    clock = Calendar()
    with tempfile.TemporaryDirectory() as folder:
        marks = marked(Path(folder), clock)
        clock.now += jump
        first = marks.time(FILE.etag)
        assert first == min(1.5e9, clock.now)
        clock.now += passed
        again = marks.time(FILE.etag)
    assert again is not None
    assert clock.now - again >= passed


def test_without_a_mark_there_is_no_time(tmp_path: Path) -> None:
    (tmp_path / "models--org--model").mkdir()
    assert BlobMarks(PrivateFolder(tmp_path, "models--org--model"), "corrupt").time(FILE.etag) is None
