"""The policy on contents: formats by name, patterns, and the licence of the model card."""

import pytest

from p2pmodel.config.sections.trust import ContentRule
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import RefusedContent
from p2pmodel.trust.content_policy import ContentPolicy, licenses_of

REPO = RepoId("Org/Model")


def test_formats_that_are_not_listed_are_refused() -> None:
    policy = ContentPolicy([ContentRule(formats=("safetensors",))])
    policy.check_files(REPO, ["model.safetensors", "config.json", "tokenizer.model", "README.md"])
    for path in ("pytorch_model.bin", "a/B.PT", "x.ckpt", "model.gguf", "modeling.py", "flax.msgpack"):
        with pytest.raises(RefusedContent, match=r"is not accepted \(contents.rules 1\)"):
            policy.check_files(REPO, ["config.json", path])
    ContentPolicy([ContentRule(formats=("safetensors", "pickle"))]).check_files(REPO, ["pytorch_model.bin"])


def test_a_refusal_is_one_line_that_says_what_to_do() -> None:
    policy = ContentPolicy([ContentRule(refused_files=("*.exe", "secret/*"))])
    with pytest.raises(RefusedContent) as refused:
        policy.check_files(REPO, ["a/tool.EXE"])
    assert str(refused.value) == (
        "a/tool.EXE of Org/Model is refused: files *.exe are not accepted (contents.rules 1); "
        "leave it out with --exclude '*.EXE', or change the rule"
    )


def test_rules_are_for_the_repositories_they_name() -> None:
    policy = ContentPolicy([ContentRule(repos=("other/*",), formats=("gguf",), licenses=("mit",))])
    policy.check_files(REPO, ["model.bin"])
    policy.check_card(REPO, None)
    assert not policy.needs_card(REPO)
    assert policy.needs_card(RepoId("Other/m"))


@pytest.mark.parametrize(
    ("card", "accepted"),
    [
        (b"---\nlicense: apache-2.0\n---\n# model", True),
        (b"---\nlicense: Apache-2.0  # yes\n---\n", True),
        (b"---\nlicense:\n- mit\n- apache-2.0\n---\n", True),
        (b'---\ntags: [x]\nlicense: ["apache-2.0"]\n---\n', True),
        (b"---\nlicense: other\nlicense_name: llama3.1\n---\n", True),
        (b"---\nlicense: gpl-3.0\n---\nlicense: mit", False),
        (b"---\nlicense:\n---\n", False),
        (b"license: mit\n", False),
        (b"---\nlicense: mit\n", False),
        (b"---\nnot_license: mit\n---\n", False),
        (b"---\nmodel:\n  license: mit\n---\n", False),
        (b"\xff\xfe", False),
        (None, False),
    ],
)
def test_the_licence_is_that_of_the_card(card: bytes | None, accepted: bool) -> None:
    policy = ContentPolicy([ContentRule(licenses=("mit", "apache-2.0", "llama*"))])
    if accepted:
        policy.check_card(REPO, card)
    else:
        with pytest.raises(RefusedContent, match="Org/Model is refused: "):
            policy.check_card(REPO, card)


def test_a_card_may_name_several_licences() -> None:
    assert licenses_of(b"---\nlicense:\n  - mit\n  - 'Other'\nlicense_name: x\n---\n") == ("mit", "other", "x")
