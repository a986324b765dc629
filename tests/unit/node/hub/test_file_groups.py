"""Groups of files that are downloaded together."""

from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.content.manifest import Manifest, ManifestFile, Selection
from p2pmodel.core.content.names import RepoId
from p2pmodel.node.hub.on_demand import LARGE, group_of


def of(sizes: dict[str, int]) -> Manifest:
    files = tuple(ManifestFile(path, size, f"{number:040x}") for number, (path, size) in enumerate(sizes.items()))
    return Manifest(RepoId("org/model"), "c" * 40, files)


def brought(whole: Manifest, path: str) -> set[str]:
    file = whole.file(path)
    assert file is not None
    return {f.path for f in whole.select_any([group_of(whole, file)])}


def test_small_files_are_one_group_and_weights_a_group_per_kind() -> None:
    shards = {f"model-0000{n}-of-00003.safetensors": LARGE * 300 for n in (1, 2)}
    whole = of({"config.json": 10, "tokenizer.json": LARGE, "other.bin": LARGE + 1} | shards)
    assert brought(whole, "config.json") == {"config.json", "tokenizer.json"}
    assert brought(whole, "model-00002-of-00003.safetensors") == set(shards)
    assert brought(whole, "other.bin") == {"other.bin"}


def test_a_short_last_shard_comes_with_the_others() -> None:
    whole = of({"m-1-of-2.bin": LARGE * 2, "m-2-of-2.bin": 5, "config.json": 3})
    assert brought(whole, "m-2-of-2.bin") == {"m-1-of-2.bin", "m-2-of-2.bin"}
    assert brought(whole, "config.json") == {"config.json"}


def test_a_snapshot_without_large_files_is_one_group() -> None:
    whole = of({"a.json": 1, "b.safetensors": LARGE})
    assert {group_of(whole, file) for file in whole.files} == {Selection()}


def test_names_that_look_like_patterns_mean_themselves() -> None:
    whole = of({"[ab]*.bin": LARGE + 1, "a.bin": LARGE + 1, "b?.bin": 2})
    assert brought(whole, "[ab]*.bin") == {"[ab]*.bin"}
    assert brought(whole, "b?.bin") == {"b?.bin"}


PATHS = st.sampled_from([f"{stem}{number}{end}" for stem in "a[*" for number in range(12) for end in ("", "]?")])
SIZES = st.sampled_from([0, 1, LARGE, LARGE + 1])


@given(st.dictionaries(PATHS, SIZES))
def test_groups_are_disjoint_and_cover_the_snapshot(sizes: dict[str, int]) -> None:
    whole = of(sizes)
    groups = {group_of(whole, file) for file in whole.files}
    taken = [f.path for group in groups for f in whole.select_any([group])]
    assert sorted(taken) == sorted(sizes)
    assert all(file.path in brought(whole, file.path) for file in whole.files)
