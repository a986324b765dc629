"""From nothing to an answer with one command: a slow mirror, `p2pmodel serve`, and the page in a real browser."""

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from p2pmodel.loading.answers.chat import ChatAnswer, answer
from p2pmodel.loading.model import load
from tests.support.browser import Browser, chromium
from tests.support.processes import P2PMODEL, PATIENCE, Nodes, Running, eventually
from tests.support.tiny_models import copy_of, dense, images

__all__ = ["dense", "images"]

REPO = "org/tiny"
QUESTION = "What is in this picture?"
ENTER = "\ue007"
TOKENS = 12
WATCH = """
window.seen = [];
const note = () => {
  const step = document.querySelector("#phases [aria-current=step]")?.dataset.phase;
  const value = document.querySelector("#startup .bar").getAttribute("aria-valuenow");
  const now = `${step} ${value}`;
  if (window.seen.at(-1) !== now) window.seen.push(now);
};
new MutationObserver(note).observe(document.body, {subtree: true, childList: true, attributes: true});
note();
"""
PASTE = """
const canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [4000, 1000];
canvas.getContext("2d").fillRect(0, 0, 2000, 500);
canvas.toBlob((blob) => {
  const data = new DataTransfer();
  data.items.add(new File([blob], "large.png", {type: "image/png"}));
  document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
});
"""
COMPOSE = """
const area = document.querySelector("#message");
area.value = "ni hao";
area.dispatchEvent(new Event("input"));
area.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", isComposing: true, bubbles: true, cancelable: true}));
return document.querySelectorAll(".turn").length;
"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


def served(nodes: Nodes, model: Path, *options: str | Path, rate: int = 0) -> Running:
    """`p2pmodel serve` of the files in `model`, which a hub sends at `rate` bytes a second."""
    hub, _ = nodes.hub(model, repo=REPO, options=("--rate", str(rate)) if rate else ())
    where = ("--endpoint", hub, "--listen", "127.0.0.1:0", "--device", "cpu", "--json")
    return nodes.start("node", "serve", REPO, *where, "--max-new-tokens", str(TOKENS), *options, OMP_NUM_THREADS="1")


def said_about(model: Path, image: Path) -> ChatAnswer:
    """The answer of the model in the directory `model`, computed in this process."""
    return answer(load(model, device="cpu"), QUESTION, image, max_new_tokens=TOKENS)


def _greedy(model: Path, target: Path) -> Path:
    """A copy that answers without chance unless a request asks for it: the page leaves that to the model."""
    copy_of(model, target)
    config = json.loads((target / "generation_config.json").read_text())
    kept = {key: value for key, value in config.items() if key.endswith("_token_id")}
    (target / "generation_config.json").write_text(json.dumps(kept))
    return target


def shows(browser: Browser, selector: str, text: str) -> None:
    eventually(lambda: text in browser.text(selector), PATIENCE, lambda: browser.text("body"))


def keep(browser: Browser, name: str) -> None:
    """Save a screenshot if P2PMODEL_TEST_PICTURES is set."""
    folder = os.environ.get("P2PMODEL_TEST_PICTURES")
    if folder:
        (Path(folder) / f"{name}.png").write_bytes(browser.picture())


@pytest.mark.needs("chromium", "chromedriver")
def test_the_page_shows_the_transfer_and_then_answers_about_a_picture(
    nodes: Nodes, dense: Path, images: list[Path], window: Browser, tmp_path: Path
) -> None:
    size = sum(path.stat().st_size for path in dense.iterdir())
    running = served(nodes, _greedy(dense, tmp_path / "greedy"), rate=size // 3)
    window.looks(width=1100)
    window.open(running.ready()["url"])
    window.run(WATCH)
    shows(window, "#model", REPO)
    shows(window, "#figures", "left")
    keep(window, "transferring")
    window.write("#message", QUESTION)
    assert window.run("return document.querySelector('#send').disabled"), "the model does not answer yet"
    shows(window, "#link", "ready")
    seen = window.run("return window.seen")
    steps = list(dict.fromkeys(each.split()[0] for each in seen))
    assert [step for step in steps if step in ("transferring", "loading")] == ["transferring", "loading"]
    assert len({each for each in seen if each.startswith("transferring")}) > 2, seen

    window.write("#file", str(images[0]))
    eventually(lambda: window.run("return document.querySelectorAll('#pictures img').length") == 1, PATIENCE)
    window.press(ENTER)
    eventually(lambda: window.run("return document.querySelector('#send').hidden") is False, PATIENCE)
    shows(window, ".turn:nth-child(2) .end", "cut off")
    expected = said_about(dense, images[0])
    said = window.run("return document.querySelector('.turn:nth-child(2) .answer').textContent")
    assert said.strip() == expected.text
    assert window.run("return document.querySelectorAll('.turn .shown-pictures img').length") == 1
    keep(window, "answered")

    assert window.run(COMPOSE) == 2, "Enter that ends a composition sends nothing"
    window.run(PASTE)
    eventually(lambda: window.run("return document.querySelectorAll('#pictures img').length") == 1, PATIENCE)
    width = window.run("return document.querySelector('#pictures img').naturalWidth")
    assert width == 1568
    window.open(running.ready()["url"])
    shows(window, "#conversations .open", QUESTION)
    window.click("#conversations .open")
    shows(window, ".turn:nth-child(2) .answer", expected.text)
    for wide, dark in ((360, True), (1100, False)):
        window.looks(width=wide, dark=dark)
        assert window.run("return document.documentElement.scrollWidth") <= wide
        keep(window, f"chat-{wide}")
    hosts = window.run("return performance.getEntriesByType('resource').map(e => new URL(e.name).origin)")
    assert set(hosts) == {running.ready()["url"]}, "only its own origin was asked"
    # The browser logs each response of 503 by itself.
    assert [line for line in window.complaints() if "503" not in line] == []
    ask_with_the_real_client(running.ready(), images[0], expected)
    done = running.stop()
    assert done.code == 0, done.err
    assert "Traceback" not in done.err


def ask_with_the_real_client(ready: dict[str, Any], image: Path, expected: ChatAnswer) -> None:
    url = f"data:image/png;base64,{base64.b64encode(image.read_bytes()).decode()}"
    content: Any = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    messages: Any = [{"role": "user", "content": content}]
    with openai.OpenAI(base_url=ready["api"], api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(model=REPO, messages=messages, temperature=0, stream=True)
        said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        assert said.strip() == expected.text
        whole = client.chat.completions.create(model=REPO, messages=messages, temperature=0)
        assert whole.choices[0].message.content == expected.text
        assert whole.usage is not None
        assert whole.usage.prompt_tokens == expected.prompt_tokens
        cut: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
        broken: Any = [{"role": "user", "content": [cut]}]
        with pytest.raises(openai.BadRequestError, match="a picture of the conversation"):
            client.chat.completions.create(model=REPO, messages=broken)


def test_a_chat_in_a_pipe_through_the_daemon(nodes: Nodes, dense: Path, images: list[Path]) -> None:
    hub, _ = nodes.hub(dense, repo=REPO)
    nodes.start("node", "daemon", "--endpoint", hub, "--swarm-listen", "127.0.0.11:0", "--json").ready()
    options = f"--device cpu --temperature 0 --max-new-tokens {TOKENS} --progress none"
    lines = f"/image {images[0]}\\n{QUESTION}\\n/new\\n/quit\\n"
    command = f"printf '{lines}' | {' '.join(P2PMODEL)} chat {REPO} {options}"
    done = nodes.program("node", "sh", "-c", command).wait()
    assert (done.code, done.out) == (0, said_about(dense, images[0]).text + "\n"), done.err
    assert re.search(r"^loaded Qwen3VLForConditionalGeneration, .* onto cpu, [\d.]+ s after", done.err, re.MULTILINE)
    assert f"(cut off after {TOKENS} tokens)" in done.err
    [view] = nodes.ok("node", "status", "--json").json["transfers"]
    assert (view["engine_reached"], view["engine"]) == ("answered", "none"), "the model is gone with the chat"
