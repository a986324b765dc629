"""The tiny models, and no network: loading is offline in every environment."""

import socket
from collections.abc import Iterator

import pytest

from tests.support.tiny_models import dense, images, moe, text_only, thinking

__all__ = ["dense", "images", "moe", "text_only", "thinking"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    asked: list[object] = []

    def refuse(*call: object) -> None:
        asked.append(call)  # checked below too: libraries swallow what this raises
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert asked == []
