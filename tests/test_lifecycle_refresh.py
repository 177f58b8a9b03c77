"""The token's life in good and bad weather: first login, refresh, backoff, permanent errors."""

from typing import Literal

import pytest

from d7agent.core import lifecycle
from d7agent.core.errors import CredentialRejected, NoCredential, TokenUnavailable
from d7agent.core.jobs import Failed
from d7agent.core.states import Gone, Policy, Pushed, Save, Ticked
from tests.support.fakes import BUSY, DOWN, HTML_403, NO_APP, UNAUTHORIZED, WRONG_SECRET
from tests.support.machine import Rig

HOUR = 3600.0


def up(rig: Rig | None = None) -> Rig:
    """A rig whose first token has come."""
    rig = rig or Rig()
    rig.settle()
    assert rig.label == "fresh"
    return rig


def due_in(rig: Rig) -> float:
    """Seconds until the agent logs in by itself."""
    at = lifecycle.next_attempt(rig.state)
    assert at is not None
    return at - rig.now.boot


def test_the_first_token_comes_by_itself() -> None:
    """The store is asked for a remembered token, then D7 for a new one, which is pushed."""
    rig = Rig()
    assert rig.label == "empty"
    up(rig)
    assert (rig.logins, rig.state.serial, len(rig.all(Pushed))) == (1, 1, 1)
    assert rig.hooks() == ["refreshed"]


@pytest.mark.parametrize(("draw", "due"), [(0.0, 0.70), (0.999999, 0.80)])
def test_a_token_with_exp_is_refreshed_in_time(draw: float, due: float) -> None:
    """At 75 % of its life, give or take 5, the next one comes; the old one is never missed."""
    rig = Rig()
    rig.draw = draw
    first = up(rig).got()
    rig.run(HOUR * due - 10)
    assert rig.got() == first
    rig.run(20)
    assert rig.got() != first
    assert (rig.label, rig.logins, rig.all(Gone)) == ("fresh", 2, [])


@pytest.mark.parametrize("form", ["jwt", "two parts", "opaque"])
def test_a_token_without_exp_is_refreshed_at_max_age(form: Literal["jwt", "two parts", "opaque"]) -> None:
    """With exp or without, JWT or not, three parts or two: all are normal tokens."""
    rig = Rig()
    rig.d7.lifetime, rig.d7.form = None, form
    up(rig)
    assert due_in(rig) == pytest.approx(12 * HOUR)
    rig.run(12 * HOUR + 1)
    assert (rig.logins, rig.label, rig.state.due_why) == (2, "fresh", "max_age")


def test_short_tokens_are_refreshed_at_half_life() -> None:
    """A two-minute token is replaced after one."""
    rig = Rig()
    rig.d7.lifetime = 120
    up(rig)
    assert due_in(rig) == pytest.approx(60, abs=2)


def test_max_age_caps_a_long_token() -> None:
    """A token of a month is renewed after max_age."""
    rig = Rig(Policy(max_age=HOUR))
    rig.d7.lifetime = 30 * 86400
    assert due_in(up(rig)) == pytest.approx(HOUR)


def test_jitter_is_drawn_once_a_token() -> None:
    """An edit of max_age moves the refresh by the same draw, an edit of anything else not at all."""
    rig = Rig()
    rig.draw = 0.25
    up(rig)
    before = rig.state
    rig.draw = 0.9
    rig.configure(Policy())
    assert rig.state is before
    rig.configure(Policy(max_age=1000))
    assert due_in(rig) == pytest.approx(1000 * 0.975, abs=1)
    rig.configure(Policy(logins_per_hour=60))
    assert rig.state.due == before.due


def test_the_same_bytes_without_exp_are_a_success() -> None:
    """D7 may give the same token again: unchanged, not pushed, the next login max_age away."""
    rig = Rig()
    rig.d7.lifetime, rig.d7.same = None, True
    up(rig)
    rig.run(12 * HOUR + 1)
    assert (rig.logins, rig.state.serial, rig.state.unchanged, rig.label) == (2, 1, True, "fresh")
    assert due_in(rig) == pytest.approx(12 * HOUR, abs=5)
    assert rig.hooks() == ["refreshed"]


def test_the_same_bytes_with_exp_never_loop() -> None:
    """Half of what is left, then half again, at least a minute apart: a handful of logins until the token ends."""
    rig = Rig()
    rig.d7.same = True
    first = up(rig).got()
    rig.run(HOUR - 10)
    for _ in range(20):
        assert rig.ask().token == first
    assert 4 <= rig.logins <= 6
    assert all(b - a >= 60 for a, b in zip(rig.d7.logins, rig.d7.logins[1:], strict=False))
    rig.run(20)
    assert rig.got() != first


def test_an_absurd_iat_does_not_loop() -> None:
    """Tokens that claim to be issued in 1970 are refreshed at half of what is left of them."""
    rig = Rig()
    up(rig)
    old = rig.d7.granted(rig.d7.issue(20 * 365 * 86400.0, age=20 * 365 * 86400.0 - 600))
    rig.begin_store()
    rig.finish_with(old)
    assert 250 < due_in(rig) < 350


def test_stale_answers_at_once() -> None:
    """Refresh due and D7 down: the good token is handed out without a wait."""
    rig = up()
    rig.d7.fault = DOWN
    rig.run(HOUR * 0.8)
    assert rig.label == "stale"
    assert rig.ask().token


def test_a_transient_failure_doubles_its_backoff() -> None:
    """1, 2, 4 … 300 s, each cut by the draw; a caller that can wait does, one that cannot is told when to come back."""
    rig = Rig()
    rig.draw = 0.0
    rig.d7.fault = DOWN
    rig.run(2000)
    gaps = [b - a - rig.latency for a, b in zip(rig.d7.logins, rig.d7.logins[1:], strict=False)]
    assert gaps == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300], abs=1e-3)
    error = rig.refused(wait=1)
    assert isinstance(error, TokenUnavailable)
    assert error.fields["reason"] == "connect"
    assert isinstance(error.fields["retry_after"], int)


def test_backoff_begins_anew_after_a_success() -> None:
    """Failures count in a row."""
    rig = Rig()
    rig.d7.faults = [DOWN, DOWN, DOWN]
    rig.run(60)
    assert (rig.state.failures, rig.state.failure, rig.label) == (0, None, "fresh")
    assert rig.hooks() == ["refreshed", "recovered"] or rig.hooks() == ["recovered", "refreshed"]


def test_retry_after_is_honoured() -> None:
    """D7 asked for ten minutes: none earlier, and callers are told."""
    rig = Rig()
    rig.d7.faults = [BUSY]
    rig.settle()
    error = rig.refused()
    assert error.fields == {"reason": "rate_limited", "retry_after": 600}
    rig.run(599)
    assert rig.logins == 1
    rig.run(2)
    assert (rig.logins, rig.label) == (2, "fresh")


def test_retry_after_is_capped_at_an_hour() -> None:
    """A day would be a mistake at the other end."""
    rig = Rig()
    rig.d7.faults = [Failed("rate_limited", "later", status=429, retry_after=86400)]
    rig.settle()
    assert due_in(rig) == pytest.approx(HOUR)


def test_while_the_token_is_good_failures_are_at_least_its_leeway_apart() -> None:
    """30 s for a token of an hour; the good token is served until its last second; then the backoff goes on alone."""
    rig = up()
    rig.d7.fault = DOWN
    rig.run(HOUR - 10)
    gaps = [b - a for a, b in zip(rig.d7.logins[1:], rig.d7.logins[2:], strict=False)]
    assert min(gaps) >= 30
    rig.run(HOUR - 2 - rig.clock.true)
    assert rig.ask().token
    rig.run(3)
    assert rig.label == "expired"
    assert rig.all(Gone)
    assert isinstance(rig.ask(wait=0).error, TokenUnavailable)


def test_an_outage_ends_by_itself() -> None:
    """Once D7 is back, the token comes within the backoff, without anyone asking, and the recovery is told."""
    rig = up()
    rig.d7.fault = DOWN
    rig.run(4 * HOUR)
    rig.d7.fault = None
    rig.run(301)
    assert rig.label == "fresh"
    assert "recovered" in rig.hooks()


def test_a_refused_credential_is_told_at_once() -> None:
    """Without a token the state is rejected: the cause, D7's code, and no more logins."""
    rig = Rig()
    rig.d7.fault = WRONG_SECRET
    rig.settle()
    error = rig.ask().error
    assert (rig.label, type(error), error.fields) == ("rejected", CredentialRejected, {"code": "INVALID"})
    rig.run(86400)
    assert (rig.logins, rig.hooks(), lifecycle.wake_at(rig.state)) == (1, ["rejected"], None)


def test_a_good_token_outlives_its_credential() -> None:
    """Refused while the token is good: served as stale with the error shown, then rejected."""
    rig = up()
    rig.d7.fault = WRONG_SECRET
    rig.run(HOUR - 10)
    assert (rig.label, rig.logins, rig.hooks()) == ("stale", 2, ["refreshed"])
    assert rig.state.refusal is not None
    assert rig.ask().token
    rig.run(20)
    assert (rig.label, rig.hooks()) == ("rejected", ["refreshed", "rejected"])
    assert isinstance(rig.ask().error, CredentialRejected)


def test_a_token_without_end_outlives_its_credential_too() -> None:
    """No exp: served on as stale, and the error stays shown."""
    rig = Rig()
    rig.d7.lifetime = None
    up(rig)
    rig.d7.fault = WRONG_SECRET
    rig.run(5 * 86400)
    assert (rig.label, rig.logins) == ("stale", 2)
    assert rig.ask().token


def test_a_deleted_application_ends_its_tokens() -> None:
    """APPLICATION_NOT_EXISTS: rejected at once, though the token had time left."""
    rig = up()
    rig.d7.fault = NO_APP
    rig.run(HOUR * 0.76)
    assert (rig.label, rig.hooks()[-1]) == ("rejected", "rejected")
    assert rig.ask().error.fields == {"code": "APPLICATION_NOT_EXISTS"}
    assert rig.all(Gone)


def test_401_is_permanent_at_the_third() -> None:
    """Two may be a passing fault."""
    rig = Rig()
    rig.d7.fault = UNAUTHORIZED
    rig.settle()
    assert rig.label == "empty"
    rig.run(1.1 + rig.latency)
    assert (rig.logins, rig.label) == (2, "empty")
    rig.run(10)
    assert (rig.logins, rig.label) == (3, "rejected")


def test_401s_count_in_a_row() -> None:
    """Another failure in between begins the count anew."""
    rig = Rig()
    rig.d7.faults = [UNAUTHORIZED, UNAUTHORIZED, DOWN, UNAUTHORIZED, UNAUTHORIZED]
    rig.run(60)
    assert (rig.logins, rig.label) == (6, "fresh")


def test_a_proxy_in_the_way_is_transient() -> None:
    """403 with HTML is no answer of D7's: it is tried again."""
    rig = Rig()
    rig.d7.fault = HTML_403
    rig.run(600)
    assert rig.label == "empty"
    rig.d7.fault = None
    rig.run(301)
    assert rig.label == "fresh"


def test_a_token_that_comes_dead_is_a_failed_login() -> None:
    """`exp` in the past: not served, tried again, and the cause says so."""
    rig = Rig()
    rig.d7.lifetime = -5
    rig.settle()
    assert rig.refused(wait=0).fields["reason"] == "bad_reply"
    rig.d7.lifetime = HOUR
    rig.run(2)
    assert rig.label == "fresh"


def test_no_credential_is_its_own_state() -> None:
    """An empty store is told at once and costs no login, and is not asked again by itself."""
    rig = Rig(start=False)
    rig.store.holds = False
    rig.restart()
    rig.settle()
    assert rig.label == "no_credential"
    assert isinstance(rig.refused(), NoCredential)
    rig.run(86400)
    assert (rig.logins, lifecycle.wake_at(rig.state), rig.hooks()) == (0, None, [])


def test_every_login_is_written_down_before_it_is_made() -> None:
    """Save comes before Login: a crash in between costs the budget, not D7."""
    rig = up()
    kinds = [type(effect).__name__ for effect in rig.effects]
    assert kinds.index("Save") < kinds.index("Login")
    assert isinstance(rig.all(Save)[0], Save)


def test_nothing_changes_nothing() -> None:
    """A tick that finds nothing due gives back the same state object: the keeper relies on it."""
    rig = up()
    before = rig.state
    rig.feed(Ticked())
    assert rig.state is before
