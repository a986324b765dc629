from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image

from p2pmodel.loading.answers.processor import ImageQwen3VLProcessor, processor_for, takes_images
from tests.support.tiny_models import copy_of

QUESTION = "What is in this image?"


def encode(processor: transformers.ProcessorMixin, picture: Image.Image) -> transformers.BatchFeature:
    content = [{"type": "image", "image": picture}, {"type": "text", "text": QUESTION}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


@pytest.fixture
def image_only(dense: Path) -> ImageQwen3VLProcessor:
    return ImageQwen3VLProcessor.from_pretrained(dense, local_files_only=True)


def test_ids_and_pixels_equal_the_tokenizer_and_the_image_processor_put_together(
    dense: Path, image_only: ImageQwen3VLProcessor, images: list[Path]
) -> None:
    with Image.open(images[0]) as file:
        picture = file.convert("RGB")
    got = encode(image_only, picture)
    tokenizer = transformers.AutoTokenizer.from_pretrained(dense)
    pixels = transformers.AutoImageProcessor.from_pretrained(dense)(images=[picture], return_tensors="pt")
    pads = int(pixels["image_grid_thw"].prod()) // 4  # 2 x 2 patches merge into one token
    expected = tokenizer(
        f"<|im_start|>user\n<|vision_start|>{'<|image_pad|>' * pads}<|vision_end|>{QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\n",
        return_tensors="pt",
    )
    assert pads == (128 // 32) * (96 // 32)
    assert torch.equal(got["input_ids"], expected["input_ids"])
    assert torch.equal(got["attention_mask"], expected["attention_mask"])
    assert torch.equal(got["image_grid_thw"], pixels["image_grid_thw"])
    assert torch.equal(got["pixel_values"], pixels["pixel_values"])
    image_places = got["input_ids"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert torch.equal(got["mm_token_type_ids"].bool(), image_places)
    assert image_places.sum() == pads


def test_the_image_only_processor_sets_all_that_the_full_one_sets(
    image_only: ImageQwen3VLProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen3VLProcessor's own constructor, with the check of the absent video processor left out, as the oracle."""
    monkeypatch.setattr(
        transformers.ProcessorMixin,
        "__init__",
        lambda self, image, tokenizer, video, chat_template: vars(self).update(
            image_processor=image, tokenizer=tokenizer, chat_template=chat_template
        ),
    )
    full = transformers.Qwen3VLProcessor(image_only.image_processor, image_only.tokenizer, None, "template")
    names = [f"{name}{kind}" for name in ("image", "video", "vision_start", "vision_end") for kind in ("_token",)]
    for name in [*names, *(f"{name}_id" for name in names)]:
        assert getattr(image_only, name) == getattr(full, name), name
        assert getattr(image_only, name) is not None


def test_thinking_template_comes_from_the_snapshot(thinking: Path) -> None:
    processor = processor_for(thinking)
    text = processor.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n"


def test_a_text_model_gets_its_tokenizer(text_only: Path) -> None:
    processor = processor_for(text_only)
    assert isinstance(processor, transformers.PreTrainedTokenizerBase)
    assert not takes_images(processor)


def test_torchvision_decides_the_processor(dense: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert type(processor_for(dense)) is ImageQwen3VLProcessor
    asked = []
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", lambda path, **_: asked.append(path))
    processor_for(dense)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    other = copy_of(dense, tmp_path / "other")
    config = other / "preprocessor_config.json"
    config.write_text(config.read_text().replace("Qwen3VLProcessor", "LlavaProcessor"))
    processor_for(other)
    assert asked == [dense, other]
