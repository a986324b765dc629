"""The facts of a node that follow from its settings."""

from pathlib import Path

import pytest

from p2pmodel.cluster.preflight.checks import SourceFact
from p2pmodel.cluster.preflight.doctor import apart
from p2pmodel.config.sections.coordinator import PrivateSettings
from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.config.sections.trust import TrustRule, TrustSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import RepoId

MANIFEST = Manifest(RepoId("org/model"), "c" * 40, ())
MIRRORS = (
    MirrorSettings(name="near", endpoint="http://near.test", repos=("org/*",)),
    MirrorSettings(name="other", endpoint="http://other.test", repos=("other/*",)),
)
ENFORCE = TrustRule(repos=("org/*",), signature="enforce")


@pytest.mark.parametrize(
    ("changes", "near", "why"),
    [
        ({}, "", ""),
        ({}, "no route", "it reaches no mirror"),
        ({"private": PrivateSettings(repos=("org/*",))}, "", "its swarm is private"),
        ({"private": PrivateSettings(repos=("other/*",))}, "", ""),
        ({"trust": TrustSettings(rules=(ENFORCE,), allowed_signers=Path("/keys"))}, "", "it requires a signature"),
    ],
)
def test_a_node_says_why_it_takes_no_part_in_an_assembly(changes: dict[str, object], near: str, why: str) -> None:
    settings = Settings(cache_dir=Path("/cache"), mirrors=MIRRORS, **changes)  # type: ignore[arg-type]
    assert apart(settings, MANIFEST, [SourceFact("near", near), SourceFact("other")]) == why
    assert apart(settings, MANIFEST, []) == "it reaches no mirror"
