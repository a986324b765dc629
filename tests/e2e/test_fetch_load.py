"""From a mirror over a seeder and a peer to a model that answers: tiny Qwen3-VL, dense, MoE and thinking."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from p2pmodel.loading.answers.chat import ChatAnswer, answer
from p2pmodel.loading.model import load
from tests.support.hub_clients import HubClient
from tests.support.processes import PATIENCE, Finished, Nodes, Running, environment, eventually
from tests.support.tiny_models import dense, images, moe, thinking

__all__ = ["dense", "images", "moe", "thinking"]

pytestmark = pytest.mark.main

QUESTION = "What is in this picture?"
TOKENS = 16
LOAD_PATIENCE = 3 * PATIENCE
"""Seconds: on a busy machine the import of the libraries alone takes a minute."""

COMPARE = """
import json, sys
import torch, transformers
from transformers import AutoConfig
name = AutoConfig.from_pretrained(sys.argv[1]).architectures[0]
here, there = (getattr(transformers, name).from_pretrained(n, dtype="auto").state_dict() for n in sys.argv[1:])
assert here.keys() == there.keys()
assert all(torch.equal(here[key], there[key]) for key in here)
print(json.dumps([name, len(here)]))
"""


LOAD = """
import json, sys
import p2pmodel, torch, transformers
seen = []
model, processor = p2pmodel.load(sys.argv[1], device="cpu", on_progress=seen.append)
plain = type(model).from_pretrained(sys.argv[2], dtype="auto").state_dict()
held = model.state_dict()
assert held.keys() == plain.keys()
assert all(torch.equal(held[key], plain[key]) for key in plain)
print(json.dumps([model.name_or_path, seen[-1].phase]))
"""


@dataclass
class Site:
    """`repo` at a mirror, and a seeder of it; the mirror is the only endpoint of all nodes."""

    nodes: Nodes
    repo: str
    endpoint: str
    ready: dict[str, Any]

    def fetch(self, node: str, *args: str | Path, **env: str) -> Finished:
        """Run `p2pmodel fetch REPO ARGS` on `node`, with this site's mirror and seeder."""
        where = ("--endpoint", self.endpoint, "--coordinator", self.ready["coordinator"])
        return self.nodes.ok(node, "fetch", self.repo, *where, *args, timeout=LOAD_PATIENCE, **env)

    def ask(self, node: str, image: Path, *args: str, **env: str) -> Finished:
        """Run `fetch --prompt` with `image`."""
        bounds = ("--max-new-tokens", str(TOKENS), "--device", "cpu")
        return self.fetch(node, "--prompt", QUESTION, "--image", image, *bounds, *args, **env)

    def offline_python(self, node: str, code: str, *args: str) -> Any:
        """Run `code` on `node`'s cache with HF_HUB_OFFLINE; the JSON it prints last."""
        env = environment(self.nodes.cache(node), HF_HUB_OFFLINE="1")
        command = [sys.executable, "-c", code, *args]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def site(request: pytest.FixtureRequest, nodes: Nodes) -> Site:
    kind = request.param
    repo = f"org/tiny-{kind}"
    nodes.ok("mirror", "import", request.getfixturevalue(kind), repo)
    endpoint, _ = nodes.mirror(address="127.0.0.1:0")  # the one address that HubClient lets through
    return Site(nodes, repo, endpoint, nodes.seed(repo, "--endpoint", endpoint).ready())


def times_in(text: str) -> list[str]:
    """The kinds of lines with a duration."""
    return re.findall(r"^(downloaded|loaded|\d+ tokens)\b.* in [\d.]+ s", text, re.MULTILINE)


def expected(snapshot: Path, image: Path) -> ChatAnswer:
    """The answer of the model in the directory `snapshot`, computed in this process."""
    return answer(load(snapshot, device="cpu"), QUESTION, image, max_new_tokens=TOKENS, on_text=lambda *_: None)


@pytest.mark.parametrize("site", ["dense"], indirect=True)
def test_the_answer_streams_to_stdout_and_depends_on_the_picture(site: Site, dense: Path, images: list[Path]) -> None:
    first = site.ask("peer", images[0])
    assert first.out == expected(dense, images[0]).text + "\n"
    assert times_in(first.err) == ["downloaded", "loaded", f"{TOKENS} tokens"]
    assert re.search(r"downloaded .* in [\d.]+ s, then verified in [\d.]+ s", first.err)
    assert str(site.nodes.cache("peer")) in first.err, "stdout is the answer's, so the path is here"

    again = site.ask("peer", images[1], "--json", "-q")
    assert again.json["loading"]["answer"]["text"] == expected(dense, images[1]).text != first.out.strip()
    gates = again.json["gates"]
    assert gates["files"] <= gates["loaded"] <= gates["answered"]
    assert again.json["from_cache"] == again.json["size"] == site.ready["size"]
    assert again.err == ""


@pytest.mark.parametrize("site", ["thinking"], indirect=True)
def test_thinking_is_not_part_of_the_answer(site: Site, thinking: Path, images: list[Path]) -> None:
    shown = site.ask("peer", images[0])
    said = expected(thinking, images[0])
    assert said.thinking
    assert shown.out.strip() == said.text
    assert said.thinking in shown.err


@pytest.mark.parametrize("site", ["dense", "moe"], indirect=True)
def test_load_reports_the_time_of_each_step_and_from_pretrained_agrees(
    site: Site, request: pytest.FixtureRequest
) -> None:
    ended = site.fetch("peer", "--load", "--device", "cpu", "--json", "--progress", "json")
    done = json.loads(ended.out)
    shown = [json.loads(line)["load"] for line in ended.err.splitlines() if '"load"' in line]
    assert shown[-1]["phase"] == "loaded"
    assert shown[-1]["loaded"] == shown[-1]["total"] == done["loading"]["weight_bytes"]
    steps = (done["find_seconds"], done["download_seconds"], done["verify_seconds"])
    assert min(steps) > 0
    assert sum(steps) <= done["seconds"] + 0.01
    assert 0 < done["loading"]["load_seconds"] < PATIENCE
    assert done["loading"]["device"] == "cpu"
    assert 0 < done["gates"]["files"] <= done["gates"]["loaded"]
    assert "answered" not in done["gates"]
    assert done["from_peers"] == done["size"] == site.ready["size"]

    kind = site.repo.removeprefix("org/tiny-")
    name, tensors = site.offline_python("peer", COMPARE, site.repo, str(request.getfixturevalue(kind)))
    assert name == done["loading"]["architecture"]
    assert tensors > 20


@pytest.mark.parametrize("site", ["dense"], indirect=True)
def test_load_alone_prints_the_path_and_comes_before_the_end_of_serving(site: Site) -> None:
    where = ("--endpoint", site.endpoint, "--coordinator", site.ready["coordinator"])
    options = ("--load", "--device", "cpu", "--seed-time", "3600")
    serving = site.nodes.start("peer", "fetch", site.repo, *where, *options)
    eventually(lambda: any(line.startswith("loaded ") for line in serving.err), PATIENCE, lambda: str(serving.err))
    assert serving.process.poll() is None, "it was to serve on"
    done = serving.stop()
    assert done.code == 0, done.err
    assert Path(done.out.strip()) == site.nodes.cache("peer") / Path(site.ready["path"]).relative_to(
        site.nodes.cache("seeder")
    )
    assert times_in(done.err) == ["downloaded", "loaded"]


@pytest.mark.parametrize("site", ["dense"], indirect=True)
def test_the_daemon_reports_while_the_engine_serves_the_model(site: Site) -> None:
    where = ("--endpoint", site.endpoint, "--coordinator", site.ready["coordinator"])
    daemon = site.nodes.start("peer", "daemon", *where, "--swarm-listen", "127.0.0.11:0", "--json")
    daemon.ready()
    watching = site.nodes.start("peer", "status", "--watch", "--json")
    site.nodes.ok("peer", "fetch", site.repo, "--prompt", QUESTION, "--device", "cpu", "-q")
    seen = [json.loads(line)["engine_ready"] for line in watching.stop().out.splitlines()]
    assert [a for a, b in zip(seen, [*seen[1:], None], strict=True) if a != b] == [False, True, False]
    assert site.nodes.ok("peer", "ready", site.repo, "--for", "600").err.startswith(
        f"served by an engine: {site.repo}@"
    )
    assert [t["engine_ready"] for t in site.nodes.ok("peer", "status", "--json").json["transfers"]] == [True]
    site.nodes.ok("peer", "ready", site.repo, "--off")
    assert [t["engine_ready"] for t in site.nodes.ok("peer", "status", "--json").json["transfers"]] == [False]
    assert daemon.stop().code == 0


@pytest.mark.parametrize("site", ["dense"], indirect=True)
def test_a_script_loads_what_the_daemon_downloads(site: Site, dense: Path) -> None:
    where = ("--endpoint", site.endpoint, "--coordinator", site.ready["coordinator"])
    daemon = site.nodes.start("peer", "daemon", *where, "--swarm-listen", "127.0.0.11:0", "--json")
    daemon.ready()
    path, phase = site.offline_python("peer", LOAD, site.repo, str(dense))
    assert phase == "loaded"
    assert Path(path).is_relative_to(site.nodes.cache("peer"))
    transfers = site.nodes.ok("peer", "status", "--json").json["transfers"]
    assert [each["repo"] for each in transfers] == [site.repo], "the daemon has downloaded it"
    assert daemon.stop().code == 0


def loads_or_ended(running: Running, folder: Path) -> bool:
    """Whether its load waits for bytes, with its temporary files in `folder`."""
    return any(folder.glob("p2pmodel-*/config.json")) or running.process.poll() is not None


def test_ctrl_c_during_a_load_ends_it_and_keeps_what_came(nodes: Nodes, dense: Path, tmp_path: Path) -> None:
    endpoint, _ = nodes.hub(dense, "slow:400@*00001*")
    daemon = nodes.start("beside", "daemon", "--endpoint", endpoint, "--swarm-listen", "127.0.0.11:0", "--json")
    daemon.ready()
    ways = {
        "alone": (("--endpoint", endpoint), "what was verified is kept: the same command resumes"),
        "beside": ((), "the daemon continues the transfer ('p2pmodel pause' stops it)"),
    }
    loading = {}
    for node, (where, _words) in ways.items():
        (tmp_path / f"{node}-tmp").mkdir()
        command = ("fetch", "org/model", *where, "--load", "--device", "cpu", "--progress", "none")
        loading[node] = nodes.start(node, *command, TMPDIR=str(tmp_path / f"{node}-tmp"))
    for node, running in loading.items():
        folder = tmp_path / f"{node}-tmp"
        eventually(partial(loads_or_ended, running, folder), LOAD_PATIENCE, partial(str, running.err))
        done = running.stop(signal.SIGINT)
        assert (done.code, done.out) == (130, ""), done
        assert done.err == f"p2pmodel: interrupted; {ways[node][1]}\n"
        assert not any(folder.iterdir()), "it was ended at its bound, not stopped"
    assert daemon.stop().code == 0

    whole, _ = nodes.hub(dense)
    small = sum(path.stat().st_size for path in dense.iterdir() if path.suffix != ".safetensors")
    for node in ways:
        resumed = nodes.ok(node, "fetch", "org/model", "--endpoint", whole, "--json", "-q").json
        assert small < resumed["from_cache"] < resumed["size"]


@pytest.mark.parametrize("site", ["dense"], indirect=True)
def test_the_hubs_own_tools_find_no_errors(site: Site, dense: Path) -> None:
    path = Path(site.fetch("peer").out.strip())
    assert {p.name for p in path.iterdir()} == {p.name for p in dense.iterdir()}
    client = HubClient(Path(sys.executable), site.nodes.cache("peer").parent, site.endpoint)
    client.hf("cache", "verify", site.repo, "--fail-on-missing-files", "--fail-on-extra-files")
    listed = client.hf("cache", "ls")
    assert f"model/{site.repo}" in listed
    blob = max((path.parents[1] / "blobs").iterdir(), key=lambda p: p.stat().st_size)
    blob.write_bytes(bytes(blob.stat().st_size))
    with pytest.raises(AssertionError, match="exit 1"):
        client.hf("cache", "verify", site.repo)
