"""The tiny models, and no network: loading is offline whatever the environment says."""

import socket

import pytest

from tests.support.tiny_models import dense, images, moe, text_only, thinking

__all__ = ["dense", "images", "moe", "text_only", "thinking"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("loading asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
