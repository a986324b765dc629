"""Options of `fetch` about the part of a rank: what must come together, and what cannot."""

import pytest

from tests.support.command_line import CommandLine

RANK = ("--tensor-parallel", "4", "--rank", "1")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rank", "1", "--out", "x"), "a part needs --tensor-parallel N and --rank K, or --plan FILE"),
        (("--rank", "0"), "a part needs --tensor-parallel N and --rank K"),
        (("--tensor-parallel", "4", "--out", "x"), "a part needs --tensor-parallel N and --rank K"),
        (("--tensor-parallel", "4", "--rank", "4", "--out", "x"), "--rank 4 is not below --tensor-parallel 4"),
        (("--out", "x"), "a part needs --tensor-parallel N and --rank K"),
        (RANK, "a part needs a file"),
        ((*RANK, "--out", "x", "--include", "*.json"), "--include cannot be combined with the part of a rank"),
        ((*RANK, "--out", "x", "--load"), "--load cannot be combined with the part of a rank"),
        ((*RANK, "--out", "x", "--exec", "true"), "--exec cannot be combined with the part of a rank"),
        ((*RANK, "--out", "x", "--priority", "0"), "--priority cannot be combined with the part of a rank"),
        ((*RANK, "--out", "x", "--server", "http://127.0.0.1:9"), "the files stay on that machine"),
        (("--plan", "none.toml", "--out", "x"), "the plan none.toml cannot be used"),
    ],
)
def test_options_that_do_not_fit_are_refused(cli: CommandLine, options: tuple[str, ...], said: str) -> None:
    assert said in cli.refuses(2, "fetch", "org/model", *options)


def test_a_plan_and_a_rank_exclude_each_other(cli: CommandLine) -> None:
    plan = cli.home / "plan.toml"
    plan.write_text("[[part]]\n")
    said = cli.refuses(2, "fetch", "org/model", "--plan", plan, "--rank", "1", "--out", "x")
    assert "--plan says what the rank needs" in said
