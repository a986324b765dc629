"""Errors of aiohttp itself in the form of all others."""

import json

import pytest
from aiohttp import web

from p2pmodel.http.error_responses import http_error_response


@pytest.mark.parametrize("reason", ["Request Entity Too Large", "Content Too Large"])
def test_the_code_of_an_error_is_the_same_with_every_python(reason: str) -> None:
    """Python 3.13 has other reasons for some statuses."""
    answer = http_error_response(web.HTTPRequestEntityTooLarge(max_size=1, actual_size=2, reason=reason))
    assert isinstance(answer.body, bytes)
    assert answer.status == 413
    assert json.loads(answer.body)["code"] == "request_entity_too_large"
