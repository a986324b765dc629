"""The files of the dashboard: all are served, load nothing from other origins, and allow no other scripts."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

import p2pmodel.service.control
from p2pmodel.http.admission.access import RequestGuard
from p2pmodel.http.server import serving
from p2pmodel.service.control.api import NodeApi
from p2pmodel.service.control.app import _ControlHandlers as Handlers
from p2pmodel.service.control.app import control_app, table
from p2pmodel.service.control.dashboard_page import PAGE, add_dashboard
from tests.support.node_machine import Machine, machine

__all__ = ["machine"]

FOLDER = Path(p2pmodel.service.control.__file__).parent / "dashboard"
SCRIPTS = sorted(FOLDER.glob("*.js"))


@pytest.fixture
async def base(machine: Machine) -> AsyncIterator[str]:
    async with machine.running() as node:
        app = control_app(NodeApi(node), "sesame-sesame", read_only=True, public=tuple(PAGE))
        add_dashboard(app)
        async with serving(app, "127.0.0.1", 0, guard=RequestGuard(secured=True, public=tuple(PAGE)), grace=0.2) as url:
            yield url


async def test_the_page_needs_no_token_and_allows_no_other_scripts(base: str) -> None:
    async with aiohttp.ClientSession() as session:
        for path, name in PAGE.items():
            async with session.get(base + path) as response:
                assert response.status == 200
                assert await response.read() == (FOLDER / name).read_bytes()
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"
        async with session.get(f"{base}/api/v1/transfers") as response:
            assert response.status == 401
        async with session.get(base, headers={"Origin": "http://evil.example"}) as response:
            assert response.status == 403
        async with session.get(f"{base}/dashboard/nothing.js") as response:
            assert response.status == 401


def test_every_file_is_served() -> None:
    assert sorted(PAGE.values()) == sorted(path.name for path in FOLDER.iterdir())


def test_the_page_calls_only_its_node_and_has_no_inline_code() -> None:
    page = (FOLDER / "index.html").read_text()
    assert {f"/{path}" for path in re.findall(r'(?:src|href)="([^"#]+)"', page)} <= set(PAGE), "relative, for prefixes"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", page)
    for path in FOLDER.iterdir():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", path.read_text()), path.name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_external_values_are_inserted_as_text(script: Path) -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(", script.read_text())
    for imported in re.findall(r'from "\./([^"]+)"', script.read_text()):
        assert imported in PAGE.values()


async def test_it_calls_operations_of_the_node(machine: Machine) -> None:
    text = "".join(script.read_text() for script in SCRIPTS)
    called = {re.sub(r"\$\{[^}]*\}", "{}", path) for path in re.findall(r'call\(["`]([^"`]+)["`]', text)}
    async with machine.running() as node:
        paths = {route.path.removeprefix("/api/v1/") for route in table(Handlers(NodeApi(node)))}
    known = {re.sub(r"\{\w+\}", "{}", path) for path in paths} | {"transfers/{}/{}"}
    assert called <= known
    assert {"node", "mirrors", "limits", "catalog", "transfers/{}/why", "transfers/{}/pieces"} <= called
