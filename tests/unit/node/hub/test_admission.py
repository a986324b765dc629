"""Allow and deny lists over repository ids."""

import pytest

from p2pmodel.core.content.names import RepoId
from p2pmodel.node.hub.admission import Admission


@pytest.mark.parametrize(
    ("allow", "deny", "admitted"),
    [
        ((), (), True),
        (("Qwen/*",), (), True),
        (("qwen/*",), (), True),
        ((), ("qwen/QWEN3-VL-8b-instruct",), False),
        (("meta-llama/*", "*/Qwen3*"), (), True),
        ((), ("Qwen/*",), False),
        (("Qwen/*",), ("*-8B*",), False),
        (("Qwen/*",), ("*-4B*",), True),
        (("gpt2",), (), False),
    ],
)
def test_deny_is_stronger_than_allow(allow: tuple[str, ...], deny: tuple[str, ...], admitted: bool) -> None:
    assert Admission(allow, deny).admits(RepoId("Qwen/Qwen3-VL-8B-Instruct")) is admitted


def test_deny_judges_both_names_and_allow_the_one_at_the_hub() -> None:
    old, new = RepoId("old/name"), RepoId("New/Name")
    assert not Admission(deny=("OLD/*",)).admits(new, old)
    assert not Admission(deny=("new/name",)).admits(new, old)
    assert Admission(allow=("new/*",)).admits(new, old)
    assert not Admission(allow=("old/*",)).admits(new, old)
    assert Admission(deny=("old/*",)).denies(old)
    assert not Admission(allow=("new/*",)).denies(old), "its name at the hub may be admitted"
