"""Node sets, files of them, and names that are none."""

from pathlib import Path

import pytest

from p2pmodel.cluster.node_sets import folded, parse_hosts
from p2pmodel.errors import InvalidInput


def test_ranges_exclusions_and_lists_expand_in_order_and_once() -> None:
    assert parse_hosts("gpu[001-003],gpu002") == ("gpu001", "gpu002", "gpu003")
    assert parse_hosts("rack[1-2]-n[01-02]!rack1-n02") == ("rack1-n01", "rack2-n01", "rack2-n02")
    assert parse_hosts("n[1-9/4]") == ("n1", "n5", "n9")
    assert folded(["gpu002", "gpu001", "gpu004"]) == "gpu[001-002,004]"


def test_a_file_has_a_set_on_each_line(tmp_path: Path) -> None:
    file = tmp_path / "failed.txt"
    file.write_text("# failed\ngpu[001-002]\n\nlogin.site.org  # the seeder\n")
    assert parse_hosts(f"@{file}") == ("gpu001", "gpu002", "login.site.org")


@pytest.mark.parametrize(
    "text", ["", "gpu 1", "@none", "gpu[1-", "-oProxyCommand=x", "@group", "root@gpu1", "gpu[1-99999999]", "a;b"]
)
def test_what_names_no_host_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_hosts(text)
    assert raised.value.hint


def test_a_file_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        parse_hosts(f"@{tmp_path}/none")
    (tmp_path / "empty").write_text("# none\n")
    with pytest.raises(InvalidInput, match="names no host"):
        parse_hosts(f"@{tmp_path}/empty")
