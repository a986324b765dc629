"""Allow and deny lists over repository ids."""

import pytest

from p2pmodel.core.content.names import RepoId
from p2pmodel.node.hub.admission import Admission


@pytest.mark.parametrize(
    ("allow", "deny", "admitted"),
    [
        ((), (), True),
        (("Qwen/*",), (), True),
        (("qwen/*",), (), False),
        (("meta-llama/*", "*/Qwen3*"), (), True),
        ((), ("Qwen/*",), False),
        (("Qwen/*",), ("*-8B*",), False),
        (("Qwen/*",), ("*-4B*",), True),
        (("gpt2",), (), False),
    ],
)
def test_deny_is_stronger_than_allow(allow: tuple[str, ...], deny: tuple[str, ...], admitted: bool) -> None:
    assert Admission(allow, deny).admits(RepoId("Qwen/Qwen3-VL-8B-Instruct")) is admitted
