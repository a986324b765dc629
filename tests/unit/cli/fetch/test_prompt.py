import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers

from p2pmodel.cli.fetch.prompt import check, load_and_answer
from p2pmodel.errors import InvalidInput
from p2pmodel.loading.answers import chat
from p2pmodel.loading.answers.chat import ChatAnswer
from p2pmodel.loading.options import LoadOptions
from tests.support.eventually import PATIENCE
from tests.support.tiny_models import copy_of, dense, images, thinking

__all__ = ["dense", "images", "thinking"]

QUESTION = "What is this?"
ON_CPU = LoadOptions(device="cpu")


@pytest.fixture(autouse=True)
def loud_again() -> Iterator[None]:
    """load_and_answer silences transformers for the whole process."""
    before = transformers.utils.logging.get_verbosity()
    yield
    transformers.utils.logging.set_verbosity(before)
    transformers.utils.logging.enable_progress_bar()


def test_the_answer_goes_to_stdout_and_the_rest_to_stderr(
    dense: Path, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    report = load_and_answer(dense, QUESTION, images[0], load=ON_CPU, max_new_tokens=12)
    out, err = capsys.readouterr()
    assert out.strip() == report["answer"]["text"]
    assert out.endswith("\n")
    lines = err.splitlines()
    assert lines[0].startswith("loaded Qwen3VLForConditionalGeneration, 0.7 MB, onto cpu in ")
    assert lines[1].startswith("12 tokens (cut off at 12) in ")
    assert len(lines) == 2


def test_json_leaves_stdout_to_the_caller(dense: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = load_and_answer(dense, QUESTION, load=ON_CPU, max_new_tokens=3, as_json=True, quiet=True)
    assert capsys.readouterr() == ("", "")
    assert json.loads(json.dumps(report)) == report
    assert report.keys() == {
        "architecture",
        "device",
        "load_seconds",
        "after_download_seconds",
        "weight_bytes",
        "answer",
    }
    assert report["answer"].keys() == {field.name for field in dataclasses.fields(ChatAnswer)}


def test_reasoning_goes_to_stderr(thinking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = load_and_answer(thinking, QUESTION, load=ON_CPU, max_new_tokens=8)
    out, err = capsys.readouterr()
    assert out == ""
    assert report["answer"]["thinking"] == err.splitlines()[1].strip()
    assert err.splitlines()[2].startswith("8 tokens (cut off at 8, still reasoning) in ")


def test_reasoning_then_answer_then_figures_on_lines_of_their_own(
    dense: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def scripted(*_: object, on_text: object, **__: object) -> ChatAnswer:
        for part in ((True, "let me"), (True, " see"), (False, "a\x1b[31mcat"), (False, "\nor a dog")):
            on_text(*part)
        return ChatAnswer("a cat", "let me see", 5, True, 0.5, 1.25)

    monkeypatch.setattr(chat, "answer", scripted)
    load_and_answer(dense, QUESTION, load=ON_CPU)
    out, err = capsys.readouterr()
    assert out == "a[31mcat\nor a dog\n"
    assert err.splitlines()[1:] == ["let me see", "5 tokens in 1.25 s, first after 0.50 s"]


def test_an_adapter_beside_the_model_is_said(dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = copy_of(dense, tmp_path / "both")
    (snapshot / "adapter_config.json").write_text("{}")
    load_and_answer(snapshot, None, load=ON_CPU)
    assert "the adapter beside the model (adapter_config.json) is not applied" in capsys.readouterr().err


def test_without_a_prompt_it_only_loads(dense: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = load_and_answer(dense, None, load=ON_CPU, quiet=True)
    assert capsys.readouterr() == ("", "")
    assert report["weight_bytes"] > 0
    assert "answer" not in report


def test_an_image_needs_a_prompt(dense: Path, images: list[Path]) -> None:
    with pytest.raises(InvalidInput, match="an image was given without a prompt"):
        load_and_answer(dense, None, images[0], load=ON_CPU)


def test_invalid_options_are_refused_before_the_download(images: list[Path], tmp_path: Path) -> None:
    check("hi", images[0], ON_CPU)
    check(None, None, LoadOptions())
    with pytest.raises(InvalidInput, match="an image was given without a prompt; add --prompt"):
        check(None, images[0], LoadOptions())
    with pytest.raises(InvalidInput, match=f"there is no image {tmp_path}/none.png"):
        check("hi", tmp_path / "none.png", LoadOptions())
    with pytest.raises(InvalidInput, match="'tpu' is not a device"):
        check("hi", None, LoadOptions("tpu"))
    with pytest.raises(InvalidInput, match="a device and a device map exclude each other"):
        check("hi", None, LoadOptions("cpu", device_map="auto"))
    with pytest.raises(InvalidInput, match="'int3' is not a dtype; use auto, bfloat16"):
        check("hi", None, LoadOptions(dtype="int3"))
    with pytest.raises(InvalidInput, match="'org/kernel' is not an attention implementation; use eager"):
        check("hi", None, LoadOptions(attn="org/kernel"))


def test_torch_is_imported_by_the_call_alone() -> None:
    code = (
        "import sys, p2pmodel.cli.fetch.prompt as a; a.check('hi', None, a.LoadOptions('cpu'));"
        "print(sorted({'torch', 'transformers', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=4 * PATIENCE, check=True
    )
    assert done.stdout == "[]\n"
