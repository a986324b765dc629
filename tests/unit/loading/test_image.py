from pathlib import Path

import pytest
from PIL import Image

from p2pmodel.errors import InvalidInput
from p2pmodel.loading.answers.processor import open_image


def test_any_mode_comes_out_as_rgb(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "P", "1", "I;16"):
        path = tmp_path / "image.png"
        Image.new(mode, (8, 6)).save(path)
        picture = open_image(path)
        assert (picture.mode, picture.size) == ("RGB", (8, 6)), mode


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    Image.new("RGB", (8, 6)).save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (6, 8)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no image"),
        (b"", "is not an image that pillow can read; use PNG, JPEG or WebP"),
        (b"<html>not found</html>", "is not an image"),
    ],
)
def test_a_file_that_is_not_an_image(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=says):
        open_image(path)


def test_a_truncated_image(images: list[Path], tmp_path: Path) -> None:
    data = images[0].read_bytes()
    for keep in range(8, len(data) * 9 // 10, 16):
        path = tmp_path / "cut.png"
        path.write_bytes(data[:keep])
        with pytest.raises(InvalidInput, match=r"cut\.png"):
            open_image(path)


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be opened: Is a directory"):
        open_image(tmp_path)


def test_a_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (30, 30)).save(tmp_path / "bomb.png")
    for limit in (700, 100):  # pillow warns above the limit and refuses above twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(InvalidInput, match="has too many pixels"):
            open_image(tmp_path / "bomb.png")
