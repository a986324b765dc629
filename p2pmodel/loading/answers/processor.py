"""The processor or tokenizer of a model, which turns a prompt and an image into its inputs."""

import importlib.util
import io
import warnings
from pathlib import Path
from typing import Any

import transformers
from PIL import Image, ImageOps, UnidentifiedImageError

from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import InvalidInput


def open_image(source: Path | bytes) -> Image.Image:
    """The image in a file or its bytes: rotated by its EXIF orientation, RGB, fully decoded. Raises InvalidInput."""
    of_file = isinstance(source, Path)
    name = f"the image {source!s}" if of_file else "a picture of the conversation"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _opened(source) as image:
                return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise InvalidInput(f"there is no image {source!s}", hint="check the path") from None
    except UnidentifiedImageError:
        subject = source if of_file else name
        raise InvalidInput(f"{subject!s} is not an image that pillow can read", hint="use PNG, JPEG or WebP") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidInput(f"{name} has too many pixels", hint="scale it down") from None
    except (OSError, SyntaxError, ValueError) as error:  # pillow raises SyntaxError for a broken PNG
        raise InvalidInput(f"{name} cannot be opened: {getattr(error, 'strerror', None) or error}") from None


def _opened(source: Path | bytes) -> Image.Image:
    if isinstance(source, Path):
        return Image.open(source)
    Image.init()
    return Image.open(io.BytesIO(source), formats=[name for name in _SENT_FORMATS if name in Image.OPEN])


_SENT_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats of pictures that clients send. Some others of pillow run further programs, as EPS does."""

_QWEN3_VL = "Qwen3VLProcessor"


class ImageQwen3VLProcessor(transformers.Qwen3VLProcessor):
    """Qwen3-VL's processor without video, the only part that needs torchvision. Same token ids, same pixel values."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        # Qwen3VLProcessor's constructor requires a video processor, so its attributes are set here instead.
        for attribute, token in (
            ("image_token", "<|image_pad|>"),
            ("video_token", "<|video_pad|>"),
            ("vision_start_token", "<|vision_start|>"),
            ("vision_end_token", "<|vision_end|>"),
        ):
            setattr(self, attribute, token)
            setattr(self, f"{attribute}_id", tokenizer.convert_tokens_to_ids(token))
        mixin: Any = transformers.ProcessorMixin
        mixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def processor_for(snapshot: Path) -> Any:
    """The processor of the model in `snapshot`, or its tokenizer for a text-only model."""
    declared = _declared(snapshot)
    if declared is None:
        return transformers.AutoTokenizer.from_pretrained(snapshot, local_files_only=True, trust_remote_code=False)
    image_only = declared == _QWEN3_VL and importlib.util.find_spec("torchvision") is None
    cls = ImageQwen3VLProcessor if image_only else transformers.AutoProcessor
    return cls.from_pretrained(snapshot, local_files_only=True, trust_remote_code=False)


def takes_images(processor: Any) -> bool:
    """Whether `processor` is more than a tokenizer."""
    return getattr(processor, "image_processor", None) is not None


def _declared(snapshot: Path) -> str | None:
    """The processor class in the snapshot's config, '' for a processor without a class name, None for no processor."""
    found = None
    for name in ("processor_config.json", "preprocessor_config.json"):
        path = snapshot / name
        if path.is_file():
            found = found or str(parse_json(path.read_text(encoding="utf-8")).get("processor_class") or "")
    return found
