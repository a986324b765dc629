"""Torrents that proved wrong are remembered: for a while, and not too many."""

from pathlib import Path

import pytest

from p2pmodel.core.content.names import Reference
from p2pmodel.store.state import judgements
from p2pmodel.store.state.judgements import REFUSED_FOR, RefusedTorrents

REF = Reference.parse("org/model@" + "ab" * 20)
OTHER = Reference.parse("org/model@" + "cd" * 20)


class Clock:
    now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("stored", [True, False])
def test_a_torrent_of_a_commit_is_refused_for_a_while(tmp_path: Path, stored: bool) -> None:
    path, clock = tmp_path / "state" / "refused.json" if stored else None, Clock()
    refused = RefusedTorrents(path, clock=clock)
    assert refused.of(REF) == frozenset()
    refused.add(REF, "aa")
    refused.add(REF, "bb")
    refused.add(OTHER, "cc")
    again = RefusedTorrents(path, clock=clock) if stored else refused
    assert (again.of(REF), again.of(OTHER)) == ({"aa", "bb"}, {"cc"})
    clock.now -= REFUSED_FOR + 1  # a clock that is set back
    assert again.of(REF) == frozenset()


def test_they_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgements, "MAX_REFUSED", 3)
    refused = RefusedTorrents(tmp_path / "refused.json")
    for number in range(5):
        refused.add(REF, str(number))
    assert refused.of(REF) == {"2", "3", "4"}


@pytest.mark.parametrize("content", ["", "{", "{}", "[1]", '[["a"]]', '[["a", "b", "c"]]', "[[1, 2, {}]]"])
def test_a_damaged_file_refuses_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "refused.json"
    path.write_text(content)
    assert RefusedTorrents(path).of(REF) == frozenset()
