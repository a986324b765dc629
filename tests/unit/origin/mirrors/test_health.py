from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from p2pmodel.origin.mirrors.health import Choice, Health, State, choose, team

A, B, C = Health("a", 0), Health("b", 1), Health("c", 2)


def failed(health: Health, times: int, now: float = 0.0, *, no_bytes: bool = True) -> tuple[Health, float]:
    """After `times` rounds of failure, each as soon as the backoff allows; and the time then."""
    for _ in range(times):
        now = max(now, health.ready_at)
        health = health.failed(now, no_bytes=no_bytes)
    return health, now


def test_priority_decides_among_the_healthy():
    assert choose([B, A], 0.0) == Choice("a", 0.0)


def test_no_choice_is_left_when_all_are_excluded():
    assert choose([A, B], 0.0, excluded={"a", "b"}) is None
    assert choose([], 0.0) is None
    assert choose([A, B], 0.0, excluded={"a"}) == Choice("b", 0.0)


def test_a_quarantined_mirror_comes_last_until_its_quarantine_ends():
    a = A.corrupted(0.0)
    assert choose([a, B], 599.0) == Choice("b", 0.0)
    assert choose([a, failed(B, 3)[0]], 1.0).name == "b", "even one that is failing"
    assert choose([a], 0.0) == Choice("a", 0.0), "the only mirror is used: its bytes are verified"
    assert choose([a, B], 601.0) == Choice("a", 0.0)


def test_a_failure_is_retried_on_the_same_mirror_after_a_backoff():
    a, now = failed(A, 1)
    assert choose([a, B], now) == Choice("a", 0.25)
    a, now = failed(A, 2)
    assert choose([a, B], now) == Choice("a", 0.5)


def test_the_third_failed_round_gives_the_turn_to_the_next():
    a, now = failed(A, 3)
    assert choose([a, B], now) == Choice("b", 0.0)
    assert choose([a], now) == Choice("a", 1.0), "the only mirror is still used"
    assert choose([a, B], now + 31) == Choice("a", 0.0), "its rank is restored after a rest"


def test_rests_grow_until_it_answers():
    a, now = failed(A, 20)
    assert a.demoted(now + 299)
    assert not a.demoted(now + 301)
    assert a.succeeded() == A


def test_failures_side_by_side_are_one_round():
    a = A
    for number in range(8):
        a = a.failed(10.0 + number / 100, no_bytes=True)
    assert a.rounds == 1
    assert a.ready_at == 10.25


def test_a_stall_costs_the_turn_at_once():
    assert choose([A.failed(0.0, no_bytes=True, slow=True), B], 0.0) == Choice("b", 0.0)


def test_bytes_keep_the_backoff_short():
    a, now = failed(A, 12, no_bytes=False)
    assert a.ready_at - now == 0.25
    assert a.demoted(now), "but a mirror that never finishes an answer loses its turn"


def test_retry_after_is_obeyed_and_the_next_mirror_fills_the_gap():
    a = A.failed(0.0, no_bytes=True, wait=60.0)
    assert choose([a], 0.0) == Choice("a", 60.0)
    assert choose([a, B], 0.0) == Choice("b", 0.0)
    assert choose([a, B], 60.0) == Choice("a", 0.0)


def test_a_longer_retry_after_in_the_same_round_wins():
    a = A.failed(0.0, no_bytes=True, wait=1.0).failed(0.5, no_bytes=True, wait=30.0)
    assert a.rounds == 1
    assert choose([a], 1.0) == Choice("a", 29.5)


def test_of_demoted_mirrors_the_first_to_be_ready_is_chosen():
    a, b = A.failed(0.0, no_bytes=True, wait=60.0), B.failed(0.0, no_bytes=True, wait=20.0)
    assert choose([a, b], 0.0) == Choice("b", 20.0)


@given(st.lists(st.tuples(st.booleans(), st.none() | st.floats(0, 1000), st.booleans(), st.floats(0, 50)), max_size=30))
def test_waits_are_bounded_and_a_mirror_is_always_chosen(failures):
    health, now = A, 0.0
    for no_bytes, wait, slow, later in failures:
        now += later
        health = health.failed(now, no_bytes=no_bytes, wait=wait, slow=slow)
    choice = choose([health], now)
    assert choice is not None
    assert 0 <= choice.wait <= max([4.0, *(w for _, w, _, _ in failures if w is not None)]) + 1e-6


def test_a_mirror_is_healthy_until_it_is_caught_with_something():
    a, now = failed(A, 1)
    states = [A.state(0.0), a.state(now), a.state(now + 1), failed(A, 3)[0].state(now), A.corrupted(0.0).state(0.0)]
    assert states == [State.HEALTHY, State.FAILING, State.FAILING, State.FAILING, State.QUARANTINED]


def test_after_a_rest_it_is_on_trial_and_one_failure_is_enough():
    a, now = failed(A, 3)
    now += 31
    assert a.state(now) is State.TRIAL
    assert a.succeeded().state(now) is State.HEALTHY
    again = a.failed(now, no_bytes=True)
    assert again.demoted(now + 59)
    assert again.state(now) is State.FAILING


def test_after_a_quarantine_only_right_bytes_end_the_trial():
    a = A.corrupted(0.0)
    assert a.verified(1.0) == a, "bytes in flight at its quarantine do not count as verified"
    assert a.state(601.0) is State.TRIAL
    assert a.succeeded().state(601.0) is State.TRIAL
    assert a.verified(601.0) == A


def test_a_second_corruption_doubles_the_quarantine():
    again = A.corrupted(0.0).corrupted(601.0)
    assert again.quarantined(601.0 + 1199)
    assert not again.quarantined(601.0 + 1201)


def test_concurrent_corruptions_count_once():
    assert A.corrupted(0.0).corrupted(1.0) == A.corrupted(0.0)


def test_a_mirror_clearly_behind_loses_its_place_and_does_not_flap():
    slow = A.compared(24.0, 100.0)
    assert slow.state(0.0) is State.SLOW
    assert choose([slow, B], 0.0) == Choice("b", 0.0)
    for rate in (24.0, 30.0, 49.0, 26.0):
        assert slow.compared(rate, 100.0).slow
        assert not A.compared(rate + 2, 100.0).slow
    assert not slow.compared(51.0, 100.0).slow
    assert slow.compared(None, 100.0).slow
    assert not A.compared(5.0, None).slow


def names(*mirrors, backlog=1000, waited=0.0, joined=(), now=0.0, **rates):
    return team(mirrors, rates, now, backlog=backlog, waited=waited, joined=joined)


def test_the_preferred_mirror_works_alone_while_it_is_quick_enough():
    assert names(A, B, C, a=1000.0, b=1.0) == ("a",)
    assert names(B, A, backlog=999, a=1000.0, b=9999.0) == ("a",)


def test_others_join_when_that_is_faster_in_order_of_priority():
    assert names(A, B, C, a=600.0, b=400.0, c=1.0) == ("a", "b")
    assert names(A, B, C, a=600.0, b=300.0, c=1.0) == ("a", "b", "c")


def test_an_unknown_one_gets_a_moment_to_show_how_quick_it_is():
    assert names(A, B, waited=0.1) == ("a",)
    assert names(A, B, waited=0.5) == ("a", "b")


def test_a_mirror_that_joined_stays():
    assert names(A, B, C, backlog=1, joined={"a", "c"}, a=1000.0) == ("a", "c")


def test_while_the_preferred_one_backs_off_the_next_joins():
    assert names(A.failed(0.0, no_bytes=True), B, C, a=9999.0, b=9999.0) == ("a", "b")


def test_fallback_demoted_and_quarantined_mirrors_never_join():
    fallback = Health("f", -1, fallback=True)
    rested, now = failed(B, 3)
    assert names(A, fallback, rested, C.corrupted(now), now=now, a=1.0, f=1.0, b=1.0, c=1.0) == ("a",)
    assert names(failed(A, 3)[0], fallback, now=now) == ("f",), "a fallback is used when the others are down"
    assert names(fallback, A.corrupted(now), now=now) == ("f",)
    assert names(A.corrupted(now), now=now) == ("a",)
    assert names() == ()


class MirrorLife(RuleBasedStateMachine):
    """Invariants of the order of two mirrors after any events."""

    @initialize()
    def begin(self):
        self.now, self.mirrors = 0.0, {"a": A, "b": B}

    def _change(self, name, health):
        self.mirrors[name] = health

    @rule(seconds=st.floats(0, 1000))
    def later(self, seconds):
        self.now += seconds

    @rule(name=st.sampled_from("ab"), no_bytes=st.booleans(), wait=st.none() | st.floats(0, 500), slow=st.booleans())
    def fail(self, name, no_bytes, wait, slow):
        self._change(name, self.mirrors[name].failed(self.now, no_bytes=no_bytes, wait=wait, slow=slow))

    @rule(name=st.sampled_from("ab"))
    def succeed(self, name):
        self._change(name, self.mirrors[name].succeeded())

    @rule(name=st.sampled_from("ab"))
    def corrupt(self, name):
        self._change(name, self.mirrors[name].corrupted(self.now))
        assert self.mirrors[name].state(self.now) is State.QUARANTINED

    @rule(name=st.sampled_from("ab"))
    def prove(self, name):
        was = self.mirrors[name].state(self.now)
        self._change(name, self.mirrors[name].verified(self.now))
        assert (was is State.QUARANTINED) == (self.mirrors[name].state(self.now) is State.QUARANTINED)

    @rule(name=st.sampled_from("ab"), rate=st.floats(1, 1000), best=st.floats(1, 1000))
    def compare(self, name, rate, best):
        self._change(name, self.mirrors[name].compared(rate, best))

    @invariant()
    def the_best_is_chosen_and_waits_end(self):
        if not hasattr(self, "mirrors"):
            return
        healths = list(self.mirrors.values())
        choice = choose(healths, self.now)
        assert choice is not None
        assert 0 <= choice.wait <= 500 + 1e-6
        chosen = self.mirrors[choice.name]
        others = [h.state(self.now) for h in healths if h is not chosen]
        if chosen.state(self.now) is State.QUARANTINED:
            assert others == [State.QUARANTINED]
        if State.HEALTHY in others:
            assert not chosen.demoted(self.now)
        assert team(healths, {}, self.now, backlog=1, waited=0.0)[0] == choice.name


TestMirrorLife = MirrorLife.TestCase
TestMirrorLife.settings = settings(max_examples=40, stateful_step_count=25)
