"""The tiny models, and no network: loading is offline in every environment."""

import socket
from collections.abc import Iterator

import pytest

from tests.support.tiny_models import dense, fp8_dense, fp8_moe, gemma, images, llama, moe, text_only, thinking, untied

__all__ = ["dense", "fp8_dense", "fp8_moe", "gemma", "images", "llama", "moe", "text_only", "thinking", "untied"]


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
