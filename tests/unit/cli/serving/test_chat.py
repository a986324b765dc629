"""A conversation in a terminal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pmodel.cli.serving.chat import HELP, ChatSession
from p2pmodel.errors import InvalidInput, LocalResource
from p2pmodel.loading.answers.turns import Picture, Sampling, Turn
from tests.support.chat_models import ScriptedModel


def asked(model: ScriptedModel) -> list[list[tuple[str, tuple[str | Picture, ...]]]]:
    return [[(turn.role, turn.parts) for turn in turns] for turns, _ in model.asked]


def test_a_conversation_with_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "a picture.png"
    picture.write_bytes(b"x")
    model, firsts = ScriptedModel(thinking="hm"), list[str]()
    talk = ChatSession(model, Sampling(seed=1), system="short", on_first=lambda: firsts.append("first"))
    talk.run([f"/image {picture}\n", "what?\n", "\n", "and?\n", "/new\n", "again\n", "/quit\n", "not this\n"])
    said = ("assistant", ("It is red.",))
    system = ("system", ("short",))
    first = ("user", (Picture(picture), "what?"))
    assert asked(model) == [
        [system, first],
        [system, first, said, ("user", ("and?",))],
        [system, ("user", ("again",))],
    ]
    assert all(sampling == Sampling(seed=1) for _, sampling in model.asked)
    out, err = capsys.readouterr()
    assert out == "It is red.\n" * 3
    assert err == "a picture.png goes with the next message\n" + "hm\n" * 3
    assert firsts == ["first"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/image", "/image needs the path of a picture"),
        ("/image /nowhere.png", "there is no image /nowhere.png"),
        ("/imgae x", "there is no command /imgae; /help lists them"),
        ("/help", HELP),
    ],
)
def test_commands(line: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = ScriptedModel()
    ChatSession(model, Sampling()).run([line])
    assert capsys.readouterr().err == f"{says}\n"
    assert model.asked == []


def test_a_path_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    model = ScriptedModel()
    ChatSession(model, Sampling()).run(["/etc/hosts is what?"])
    assert asked(model) == [[("user", ("/etc/hosts is what?",))]]


def test_a_model_of_text_gets_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ChatSession(ScriptedModel(takes_images=False), Sampling()).run([f"/image {tmp_path}"])
    assert capsys.readouterr().err == "this model takes text only\n"


def test_a_stopped_answer_is_part_of_the_conversation(capsys: pytest.CaptureFixture[str]) -> None:
    model = ScriptedModel(fails=KeyboardInterrupt(), fails_at=2)  # type: ignore[arg-type]
    ChatSession(model, Sampling()).run(["one", "two"])
    assert asked(model)[1] == [("user", ("one",)), ("assistant", ("It is",)), ("user", ("two",))]
    out, err = capsys.readouterr()
    assert (out, err) == ("It is \n" * 2, "(stopped)\n" * 2)


def test_a_message_that_the_model_does_not_take_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "x.png"
    picture.write_bytes(b"x")
    model = ScriptedModel(fails=InvalidInput("not an image"))
    ChatSession(model, Sampling(), quiet=True).run([f"/image {picture}", "one", "two"])
    assert asked(model) == [[("user", (Picture(picture), "one"))], [("user", ("two",))]]
    assert capsys.readouterr().err == "not an image\n" * 2


def test_a_failure_of_the_machine_ends_it() -> None:
    def lines() -> Iterator[str]:
        yield "one"
        raise AssertionError("no further message is read")

    with pytest.raises(LocalResource):
        ChatSession(ScriptedModel(fails=LocalResource("no memory")), Sampling()).run(lines())


def test_an_answer_that_reaches_its_bound(capsys: pytest.CaptureFixture[str]) -> None:
    ChatSession(ScriptedModel(), Sampling(max_new_tokens=2)).run(["one"])
    assert capsys.readouterr() == ("It is \n", "(cut off after 2 tokens)\n")


def test_a_turn_has_its_texts() -> None:
    assert Turn("user", ("a", Picture(b"x"), "b")).text == "ab"
