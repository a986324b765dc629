"""Copies of ranges: exact, also where the kernel does not copy between the two file systems."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pmodel.store.files.file_system import copy_range

DATA = os.urandom(3 << 20)


@pytest.fixture(params=["same file system", "another file system"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    if request.param == "same file system":
        descriptor = os.open(tmp_path / "source", os.O_RDWR | os.O_CREAT)
    else:
        descriptor = os.memfd_create("source")
    os.write(descriptor, DATA)
    yield descriptor
    os.close(descriptor)


def test_a_range_lands_at_its_offset(source: int, tmp_path: Path):
    with (tmp_path / "target").open("w+b") as target:
        assert copy_range(source, target.fileno(), 1000, 77, 2 << 20)
        assert target.seek(77) == 77
        assert target.read() == DATA[1000 : 1000 + (2 << 20)]


def test_a_source_that_ends_before_is_told(source: int, tmp_path: Path):
    with (tmp_path / "target").open("w+b") as target:
        assert not copy_range(source, target.fileno(), len(DATA) - 10, 0, 11)
