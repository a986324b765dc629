"""The chat page in a real browser, with a model from a script: stopping, reasoning, refusals, the key."""

import json
from collections.abc import Iterator

import pytest

from p2pmodel.errors import PromptTooLong
from tests.support.browser import Browser, chromium
from tests.support.chat_models import ScriptedModel
from tests.support.in_thread import in_thread
from tests.support.model_endpoint import NAME, serving_model
from tests.support.processes import PATIENCE, eventually

pytestmark = pytest.mark.needs("chromium", "chromedriver")

ENTER = "\ue007"
KEY = "sesame-sesame-sesame"
PICTURE = """
const canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [8, 8];
canvas.toBlob((blob) => {
  const data = new DataTransfer();
  data.items.add(new File([blob], "small.png", {type: "image/png"}));
  document.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
});
"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        found.looks(width=1100)
        yield found


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    yield window
    window.open("about:blank")
    window.complaints()


def shows(browser: Browser, selector: str, text: str) -> None:
    eventually(lambda: text in browser.text(selector), PATIENCE, lambda: browser.text("body"))


def opened(browser: Browser, url: str) -> None:
    browser.open(url)
    shows(browser, "#link", "ready")


def test_an_answer_streams_and_is_stopped(browser: Browser) -> None:
    model = ScriptedModel(words=["one ", "**two** ", "`three` ", "<b>four</b>"] * 9, thinking="let me see")
    model.hold()
    with in_thread(serving_model(model)) as served:
        opened(browser, served.url)
        browser.write("#message", "count" + ENTER)
        shows(browser, ".turn:nth-child(2) .thinking summary", "Thinking")
        assert not browser.run("return document.querySelector('.turn:nth-child(2) .thinking').open"), "it is folded"
        model.release(4)
        shows(browser, ".turn:nth-child(2) .answer", "one two three <b>four</b>")
        assert browser.run("return document.querySelectorAll('.answer strong, .answer code').length") == 2
        assert browser.run("return document.querySelector('.turn:nth-child(2)').ariaBusy") == "true"
        browser.click("#stop")
        shows(browser, ".turn:nth-child(2) .end", "stopped")
        assert model.ended.acquire(timeout=PATIENCE), "the generation has ended"
        assert len(model.said) == 4
        browser.click(".turn:nth-child(2) .thinking summary")
        shows(browser, ".turn:nth-child(2) .thinking .text", "let me see")

        model.release(99)
        browser.write("#message", "more" + ENTER)
        shows(browser, ".turn:nth-child(4) .answer", "one two")
        eventually(lambda: len(model.asked) == 2, PATIENCE)
        turns, _ = model.asked[1]
        assert [turn.role for turn in turns] == ["user", "assistant", "user"]
        assert turns[1].text == "one **two** `three` <b>four</b>", "what was said, without the reasoning"
        browser.click("#new")
        assert browser.text("#messages") == ""
        assert browser.complaints() == []


def test_a_refused_message_goes_back_into_the_form(browser: Browser) -> None:
    model = ScriptedModel(fails=PromptTooLong("the conversation has 9 tokens, and the model has room for 8"))
    with in_thread(serving_model(model)) as served:
        opened(browser, served.url)
        browser.run(PICTURE)
        eventually(lambda: browser.run("return document.querySelectorAll('#pictures img').length") == 1, PATIENCE)
        browser.write("#message", "too long" + ENTER)
        shows(browser, "#error", "has 9 tokens, and the model has room for 8")
        assert browser.run("return document.querySelector('#message').value") == "too long"
        assert browser.run("return document.querySelectorAll('#pictures img').length") == 1
        assert browser.run("return document.querySelectorAll('.turn').length") == 0
        browser.click("#pictures button")
        assert browser.run("return document.querySelector('#pictures').hidden")


def test_the_key_is_requested_and_kept_in_the_tab(browser: Browser) -> None:
    with in_thread(serving_model(key=KEY)) as served:
        browser.open(served.url)
        shows(browser, "#link", "key required")
        browser.write("#key", "wrong" + ENTER)
        shows(browser, "#login-error", "Wrong key.")
        browser.write("#key", KEY + ENTER)
        shows(browser, "#model", NAME)
        shows(browser, "#link", "ready")
        browser.write("#message", "hello" + ENTER)
        shows(browser, ".turn:nth-child(2) .answer", "It is red.")
        browser.open(served.url)
        shows(browser, "#link", "ready")
        assert KEY not in json.dumps(browser.run("return {...localStorage}"))
    browser.write("#message", "again" + ENTER)
    shows(browser, "#error", "the server does not answer")
    # The browser logs each response of 401, and each failed connection, by itself.
    assert [line for line in browser.complaints() if "401" not in line and "ERR_" not in line] == []


def test_a_model_of_text_takes_no_pictures(browser: Browser) -> None:
    with in_thread(serving_model(ScriptedModel(takes_images=False))) as served:
        opened(browser, served.url)
        eventually(lambda: bool(browser.run("return document.querySelector('#attach').hidden")), PATIENCE)
