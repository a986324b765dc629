"""Image files for a prompt, decoded as the models' own loaders decode them."""

import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from p2pmodel.errors import InvalidInput


def open_image(path: Path) -> Image.Image:
    """The image in `path`: rotated by its EXIF orientation, RGB, fully decoded. Raises InvalidInput."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise InvalidInput(f"there is no image {path}", hint="check the path") from None
    except UnidentifiedImageError:
        raise InvalidInput(f"{path} is not an image that pillow can read", hint="use PNG, JPEG or WebP") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidInput(f"the image {path} has too many pixels", hint="scale it down") from None
    except (OSError, SyntaxError, ValueError) as error:  # pillow raises SyntaxError for a broken PNG
        raise InvalidInput(f"the image {path} cannot be opened: {getattr(error, 'strerror', None) or error}") from None
