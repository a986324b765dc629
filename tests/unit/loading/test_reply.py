"""Conversations of several turns, sampling, stop texts, and answers that are stopped."""

import dataclasses
from pathlib import Path

import pytest

from p2pmodel.errors import InvalidInput, PromptTooLong
from p2pmodel.loading.answers.chat import answer, reply
from p2pmodel.loading.answers.processor import open_image
from p2pmodel.loading.answers.turns import Picture, Sampling, Turn
from p2pmodel.loading.model import LoadedModel, load
from tests.support.tiny_models import copy_of

QUESTION = "What is in this image?"
GREEDY = Sampling(temperature=0, max_new_tokens=16)


@pytest.fixture(scope="module")
def loaded(dense: Path) -> LoadedModel:
    return load(dense, device="cpu")


def user(*parts: str | Picture) -> Turn:
    return Turn("user", parts)


def test_a_conversation_of_several_turns_equals_that_of_generate(loaded: LoadedModel, images: list[Path]) -> None:
    turns = (
        Turn("system", ("Be short.",)),
        user(Picture(images[0].read_bytes()), QUESTION),
        Turn("assistant", ("A circle.",)),
        user("And in this one? ", Picture(images[1])),
    )
    said = reply(loaded, turns, GREEDY)
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be short."}]},
        {
            "role": "user",
            "content": [{"type": "image", "image": open_image(images[0])}, {"type": "text", "text": QUESTION}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "A circle."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And in this one? "},
                {"type": "image", "image": open_image(images[1])},
            ],
        },
    ]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = loaded.processor.apply_chat_template(messages, **options)
    output = loaded.model.generate(**inputs, do_sample=False, temperature=1.0, top_p=1.0, top_k=50, max_new_tokens=16)
    length = inputs["input_ids"].shape[1]
    assert said.text == loaded.processor.decode(output[0, length:], skip_special_tokens=True).strip()
    assert (said.prompt_tokens, said.tokens) == (length, 16)
    assert reply(loaded, turns[1:], GREEDY).text != said.text


def test_the_seed_determines_what_is_drawn(loaded: LoadedModel) -> None:
    def drawn(seed: int | None, temperature: float | None = 1.5, top_p: float | None = None) -> str:
        sampling = Sampling(temperature, top_p, seed, max_new_tokens=24)
        return reply(loaded, (user(QUESTION),), sampling).text

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(3)}) == 3
    assert len({drawn(None) for _ in range(3)}) > 1, "without a seed each answer has its own"
    assert drawn(1, None) == drawn(1, None), "the model's own temperature"
    greedy = answer(loaded, QUESTION, max_new_tokens=24).text
    assert {drawn(seed, 0) for seed in range(2)} == {greedy}
    assert {drawn(seed, 1e-9) for seed in range(2)} == {greedy}, "no overflow"
    assert {drawn(seed, 1.5, top_p=0) for seed in range(2)} == {greedy}, "only the most likely token is left"


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(loaded: LoadedModel) -> None:
    whole = answer(loaded, QUESTION, max_new_tokens=24)
    words = whole.text.split(" ")
    stop = words[4]
    before = whole.text[: whole.text.index(stop)]
    heard: list[str] = []
    sampling = Sampling(temperature=0, max_new_tokens=24, stop=("not there", stop))
    said = reply(loaded, (user(QUESTION),), sampling, on_text=lambda _, text: heard.append(text))
    assert said.text == before.rstrip()
    assert "".join(heard) == before
    assert said.finished
    assert said.tokens < whole.tokens


def test_a_stop_text_does_not_end_the_reasoning(thinking: Path) -> None:
    model = load(thinking, device="cpu")
    said = reply(model, (user(QUESTION),), Sampling(temperature=0, max_new_tokens=12, stop=(" ",)))
    assert (said.tokens, said.finished, said.text) == (12, False, "")


def test_it_stops_within_one_token(loaded: LoadedModel) -> None:
    asked = []

    def stopped() -> bool:
        asked.append(True)
        return len(asked) >= 3

    said = reply(loaded, (user(QUESTION),), Sampling(temperature=0, max_new_tokens=4000), stopped=stopped)
    assert (said.tokens, said.finished) == (3, False)


def test_the_room_of_the_model_bounds_the_answer(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    length = reply(loaded, (user(QUESTION),), GREEDY).prompt_tokens
    text_config = loaded.model.config.get_text_config()
    monkeypatch.setattr(text_config, "max_position_embeddings", length + 5)
    said = reply(loaded, (user(QUESTION),), GREEDY)
    assert (said.tokens, said.finished) == (5, False)
    monkeypatch.setattr(text_config, "max_position_embeddings", length)
    with pytest.raises(PromptTooLong, match=f"has {length} tokens, and the model has room for {length}"):
        reply(loaded, (user(QUESTION),), GREEDY)


def test_a_text_model_takes_several_turns_with_a_template_only(text_only: Path, tmp_path: Path) -> None:
    turns = (user("one"), Turn("assistant", ("two",)), user("three"))
    assert reply(load(text_only, device="cpu"), turns, GREEDY).tokens == 16
    bare = copy_of(text_only, tmp_path / "bare")
    config = bare / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"chat_template"', '"no_template"'))
    with pytest.raises(InvalidInput, match="this model has no chat template"):
        reply(load(bare, device="cpu"), turns, GREEDY)


@pytest.mark.parametrize("data", [b"", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_bytes_that_are_no_picture(loaded: LoadedModel, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="a picture of the conversation is not an image that pillow can read"):
        reply(loaded, (user(Picture(data)),), GREEDY)


def test_the_state_of_the_generation_config_stays(loaded: LoadedModel) -> None:
    before = loaded.model.generation_config.to_dict()
    reply(loaded, (user(QUESTION),), dataclasses.replace(GREEDY, temperature=1.0, top_p=0.5))
    assert loaded.model.generation_config.to_dict() == before
