import dataclasses
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from p2pmodel.errors import InvalidInput, LocalResource
from p2pmodel.loading.answers.chat import answer
from p2pmodel.loading.answers.processor import open_image
from p2pmodel.loading.model import LoadedModel, load
from tests.support.tiny_models import copy_of

QUESTION = "What is in this image?"


@pytest.fixture(scope="module")
def loaded(dense: Path) -> LoadedModel:
    return load(dense, device="cpu")


@pytest.fixture(scope="module")
def text_model(text_only: Path) -> LoadedModel:
    return load(text_only, device="cpu")


def test_the_answer_equals_that_of_generate(loaded: LoadedModel, images: list[Path]) -> None:
    content = [{"type": "image", "image": open_image(images[0])}, {"type": "text", "text": QUESTION}]
    inputs = loaded.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    output = loaded.model.generate(**inputs, do_sample=False, temperature=1.0, top_p=1.0, top_k=50, max_new_tokens=24)
    expected = loaded.processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    got = answer(loaded, QUESTION, images[0], max_new_tokens=24)
    assert got.text == expected.strip()
    assert (got.tokens, got.thinking, got.finished) == (24, "", False)
    assert 0 < got.first_token_seconds < got.seconds


def test_the_answer_depends_on_image_and_prompt_only(loaded: LoadedModel, images: list[Path]) -> None:
    def said(prompt: str, image: Path | None) -> str:
        return answer(loaded, prompt, image, max_new_tokens=16).text

    answers = [said(QUESTION, image) for image in (*images, None)] + [said("Describe it.", images[0])]
    assert len(set(answers)) == len(answers)
    torch.manual_seed(7)
    assert said(QUESTION, images[1]) == answers[1]


def test_text_streams_in_this_thread(loaded: LoadedModel, images: list[Path]) -> None:
    heard: list[tuple[int, bool, str]] = []
    got = answer(
        loaded,
        QUESTION,
        images[0],
        max_new_tokens=32,
        on_text=lambda thinks, text: heard.append((threading.get_ident(), thinks, text)),
    )
    assert "".join(text for _, _, text in heard).rstrip() == got.text
    assert len(heard) > 3
    assert {(thread, thinks) for thread, thinks, _ in heard} == {(threading.get_ident(), False)}


def test_a_thinking_model_starts_inside_its_reasoning(thinking: Path, images: list[Path]) -> None:
    heard: list[bool] = []
    got = answer(
        load(thinking, device="cpu"), QUESTION, images[0], max_new_tokens=12, on_text=lambda t, _: heard.append(t)
    )
    assert got.text == ""
    assert got.thinking
    assert set(heard) == {True}


def test_a_thinking_model_that_comes_to_an_answer(thinking: Path) -> None:
    loaded = load(thinking, device="cpu")
    script = loaded.processor.tokenizer.encode("the circle</think>\n\nA red circle.<|im_end|>")
    with_script = dataclasses.replace(loaded, model=_scripted(loaded.model, script))
    got = answer(with_script, QUESTION, max_new_tokens=99)
    assert (got.thinking, got.text, got.tokens, got.finished) == ("the circle", "A red circle.", len(script), True)


def _scripted(model: torch.nn.Module, script: list[int]) -> torch.nn.Module:
    """`model` with the tokens of `script` as its most likely ones, in order."""
    remaining = iter(script)

    def force(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        forced = torch.zeros_like(output)
        forced[..., next(remaining)] = 1
        return forced

    model.lm_head.register_forward_hook(force)
    return model


@pytest.mark.parametrize("error", [KeyboardInterrupt, BrokenPipeError])
def test_the_listener_can_stop_it(loaded: LoadedModel, error: type[BaseException]) -> None:
    heard: list[str] = []

    def stop(_thinks: bool, text: str) -> None:
        heard.append(text)
        raise error

    with pytest.raises(error):
        answer(loaded, QUESTION, max_new_tokens=4000, on_text=stop)
    assert len(heard) == 1


def test_a_text_model_answers_with_and_without_a_chat_template(text_only: Path, tmp_path: Path) -> None:
    with_template = answer(load(text_only, device="cpu"), QUESTION, max_new_tokens=8)
    bare = copy_of(text_only, tmp_path / "bare")
    config = bare / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"chat_template"', '"no_template"'))
    without = answer(load(bare, device="cpu"), QUESTION, max_new_tokens=8)
    assert with_template.tokens == without.tokens == 8
    assert with_template.text != without.text


def test_a_text_model_is_given_no_image(text_model: LoadedModel, images: list[Path]) -> None:
    with pytest.raises(InvalidInput, match="an image was given, but Qwen3ForCausalLM takes text only"):
        answer(text_model, QUESTION, images[0])


def test_a_vision_model_without_a_template_refuses_an_image(
    loaded: LoadedModel, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded.processor, "chat_template", None)
    assert answer(loaded, QUESTION, max_new_tokens=2).tokens == 2
    with pytest.raises(InvalidInput, match="no chat template for an image"):
        answer(loaded, QUESTION, images[0])


@pytest.mark.parametrize("tokens", [0, -5])
def test_at_least_one_token(loaded: LoadedModel, tokens: int) -> None:
    with pytest.raises(InvalidInput, match=f"max_new_tokens is {tokens}"):
        answer(loaded, QUESTION, max_new_tokens=tokens)


def test_a_prompt_that_smuggles_image_tokens(loaded: LoadedModel) -> None:
    with pytest.raises(InvalidInput, match=r"preparing the prompt: .*no images were passed"):
        answer(loaded, "see <|image_pad|>")


def test_a_model_that_does_not_generate(text_model: LoadedModel) -> None:
    encoder = dataclasses.replace(text_model, model=text_model.model.model)
    with pytest.raises(InvalidInput, match="Qwen3Model does not generate text"):
        answer(encoder, QUESTION)


def test_out_of_gpu_memory(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has ...")

    monkeypatch.setattr(loaded.model, "generate", refuse)
    with pytest.raises(LocalResource, match=r"on cpu: the GPU has not enough memory; use a smaller model"):
        answer(loaded, QUESTION)


def test_a_picture_too_thin_for_the_model(loaded: LoadedModel, tmp_path: Path) -> None:
    Image.new("RGB", (1000, 2)).save(tmp_path / "thin.png")
    with pytest.raises(InvalidInput, match="aspect ratio"):
        answer(loaded, QUESTION, tmp_path / "thin.png")
