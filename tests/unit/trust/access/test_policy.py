"""The decision of rules: default, order, patterns, groups, and a right that a mirror must confirm."""

import pytest
from pydantic import ValidationError

from p2pmodel.config.sections.trust import AccessRule
from p2pmodel.trust.access.policy import ADMINISTRATOR, ANYONE, LOCAL, SERVER, AccessPolicy, Decision, Subject, Verb

ANNA = Subject("user", "anna", frozenset({"ml"}))
ML = AccessRule(subjects=("group:ml",), repos=("Qwen/*",))


def test_without_rules_a_server_lets_its_clients_do_what_its_own_tokens_say() -> None:
    policy = AccessPolicy()
    assert policy.decide(ANYONE, Verb.READ, "org/m") == Decision(True, "no rules", ask_mirror=True)
    assert not policy.decide(ANNA, Verb.OPERATE, None).allowed
    assert policy.decide(SERVER, Verb.OPERATE, None).allowed


def test_with_a_rule_what_no_rule_allows_is_refused() -> None:
    policy = AccessPolicy([ML])
    assert policy.decide(ANNA, Verb.READ, "qwen/Qwen3") == Decision(True, "rule 1")
    for subject, verb, repo in (
        (ANNA, Verb.READ, "org/m"),
        (ANNA, Verb.PUBLISH, "Qwen/Qwen3"),
        (ANNA, Verb.READ, None),
        (ANYONE, Verb.READ, "Qwen/Qwen3"),
        (SERVER, Verb.READ, "Qwen/Qwen3"),
        (Subject("token", "ml"), Verb.READ, "Qwen/Qwen3"),
        (Subject("user", "group:ml"), Verb.READ, "Qwen/Qwen3"),
    ):
        assert policy.decide(subject, verb, repo) == Decision(False, "no rule"), (subject, verb, repo)


@pytest.mark.parametrize("first", [0, 1])
def test_a_deny_rule_wins_wherever_it_stands(first: int) -> None:
    deny = AccessRule(action="deny", subjects=("anyone",), repos=("*/secret-*",))
    rules = [AccessRule(subjects=("user:*",)), deny]
    policy = AccessPolicy(rules if first else rules[::-1])
    assert policy.decide(ANNA, Verb.READ, "org/open").allowed
    refused = policy.decide(ANNA, Verb.READ, "Org/SECRET-1")
    assert (refused.allowed, refused.reason) == (False, f"rule {2 if first else 1} denies it")


def test_the_own_user_and_administrators_are_bound_by_no_rule() -> None:
    policy = AccessPolicy([AccessRule(action="deny")])
    for subject in (LOCAL, ADMINISTRATOR):
        decision = policy.decide(subject, Verb.READ, "org/m")
        assert decision.allowed
        assert not decision.ask_mirror


def test_a_rule_for_clients_of_the_hub_needs_the_word_of_a_mirror() -> None:
    policy = AccessPolicy([AccessRule(subjects=("hub",)), ML])
    node = Subject("certificate", "gpu-1", with_hub_token=True)
    assert policy.decide(Subject("hub"), Verb.READ, "org/m").ask_mirror
    assert policy.decide(node, Verb.READ, "org/m").ask_mirror
    assert not policy.decide(Subject("certificate", "gpu-1"), Verb.READ, "org/m").allowed
    both = Subject("user", "anna", frozenset({"ml"}), with_hub_token=True)
    assert not policy.decide(both, Verb.READ, "Qwen/Qwen3").ask_mirror, "rule 2 gives the right by itself"


def test_a_server_that_lost_its_rules_stays_closed() -> None:
    policy = AccessPolicy((), closed=True)
    assert not policy.decide(ANYONE, Verb.READ, "org/m").allowed
    assert not policy.may_ever(SERVER, Verb.READ)


def test_a_subject_may_ever_do_what_a_rule_allows_for_some_repository() -> None:
    policy = AccessPolicy([AccessRule(subjects=("token:ci",), verbs=("publish",), repos=("our/*",))])
    assert policy.may_ever(Subject("token", "ci"), Verb.PUBLISH)
    assert not policy.may_ever(Subject("token", "ci"), Verb.READ)


def test_to_infer_is_another_right_than_to_read() -> None:
    policy = AccessPolicy([AccessRule(subjects=("token:chat",), verbs=("infer",), repos=("org/*",))])
    chat = Subject("token", "chat")
    assert policy.decide(chat, Verb.INFER, "org/m").allowed
    assert not policy.decide(chat, Verb.READ, "org/m").allowed
    assert not policy.decide(chat, Verb.INFER, "other/m").allowed
    without = AccessPolicy()
    assert without.decide(chat, Verb.INFER, "org/m").allowed
    assert not without.decide(chat, Verb.OPERATE, None).allowed


@pytest.mark.parametrize(
    "wrong",
    [
        {"subjects": ("anna",)},
        {"subjects": ("user:",)},
        {"repos": ("a b",)},
        {"verbs": ("operate",), "repos": ("a/*",)},
    ],
)
def test_rules_that_could_not_work_are_refused(wrong: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValidationError):
        AccessRule(**wrong)
