"""No sequence of events serves a dead token, logs in twice at once, overdraws the budget or lets a peer do harm.

Every event a keeper can feed, in any order, with faults, stepped clocks, suspends, late results and restarts between.
The judges are the fake D7, which knows its own tokens, and bucket maths done from scratch on the logins it saw.
"""

from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from d7agent.core import lifecycle
from d7agent.core.jobs import Failed, Proved
from d7agent.core.states import Effect, Event, Forgotten, LockedUp, Policy, Pushed, Started, Ticked, Unlocked
from tests.support.fakes import BUSY, DOWN, HTML_403, UNAUTHORIZED, WRONG_SECRET
from tests.support.machine import Rig, level_left, within_budget

YEAR: Final = 365 * 86400.0
FAULTS: Final[list[Failed]] = [DOWN, DOWN, BUSY, HTML_403, UNAUTHORIZED, WRONG_SECRET]
UNKNOWN: Final[list[Proved | Failed]] = [DOWN, Proved(works=False, refused=False, status=500)]
PEERS: Final = (1001, 1002)
HEALED_WITHIN: Final = 600.0 + 120 + 60  # seconds: the longest Retry-After here, the pause if unwritable, and a rest

peers = st.sampled_from(PEERS)
waits = st.sampled_from([0.0, 5.0, 30.0, 600.0])
validities = st.sampled_from([None, None, 1.0, 60.0, 500.0, 3500.0, 1e5])


class WatchedRig(Rig):
    """Holds after every single event that a token D7 accepts stays in force, unless the owner took it."""

    def __init__(self) -> None:
        self.in_force: str | None = None
        super().__init__(start=False)

    def feed(self, event: Event) -> None:
        """One event, then the judgement."""
        super().feed(event)
        self.judge()

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Pushed) and self.state.grant is not None:
            self.in_force = self.state.grant.access_token.reveal()
        super()._carry_out(effect)

    def judge(self) -> None:
        """A token that D7 accepts for two seconds more (its times are cut to whole ones) is at hand, or a newer one."""
        token = self.in_force
        if token is None or self.state.locked or not self.d7.good(token):
            return
        end = self.d7.end(token)
        if end is None or self.clock.true < end - 2:
            assert lifecycle.alive(self.state.grant, self.now.boot) is not None, "a good token was brought down"

    def taken(self) -> None:
        """The owner took the token away."""
        self.in_force = None


class Life(RuleBasedStateMachine):
    """One profile's life in hypothesis' hands."""

    @initialize(
        lifetime=st.sampled_from([None, 600.0, 3600.0, 86400.0]),
        form=st.sampled_from(["jwt", "jwt", "two parts", "opaque"]),
        iat=st.booleans(),
        same=st.booleans(),
        latency=st.sampled_from([0.3, 15.0]),
        keeps=st.booleans(),
    )
    def begin(self, lifetime: float | None, form: Any, iat: bool, same: bool, latency: float, keeps: bool) -> None:
        """A kind of token, a slow or fast D7, a store that remembers or not."""
        self.rig = WatchedRig()
        d7 = self.rig.d7
        d7.lifetime, d7.form, d7.iat, d7.same = lifetime, form, iat or same, same
        self.rig.latency, self.rig.store.keeps = latency, keeps
        self.caused: dict[int, list[float]] = {uid: [] for uid in PEERS}
        self.stepped = False
        self.rig.feed(Started())

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 61.0, 400.0, 3000.0, 40000.0]), draw=st.floats(0, 0.999))
    def time_passes(self, seconds: float, draw: float) -> None:
        """Timers ring, helpers come back, callers lose patience."""
        self.rig.draw = draw
        self.rig.run(seconds)

    @rule(seconds=st.sampled_from([1.0, 100.0, 3000.0, 1e5]))
    def suspend(self, seconds: float) -> None:
        """BOOTTIME jumps; what was under way comes back afterwards."""
        self.rig.clock.advance(seconds)
        self.rig.judge()

    @rule(seconds=st.sampled_from([-10 * YEAR, -3600.0, 3600.0, 10 * YEAR]))
    def set_clock(self, seconds: float) -> None:
        """Someone sets the wall clock. What an earlier boot remembered has no other clock: it is left out here."""
        remembered = self.rig.store.remembered
        if remembered is not None and remembered.received.boot_id != self.rig.now.boot_id:
            self.rig.store.remembered = None
        self.stepped = True
        self.rig.clock.step(seconds)

    @rule()
    def tick(self) -> None:
        """A timer rings, early or late."""
        self.rig.feed(Ticked())

    @precondition(lambda self: self.rig.job is not None)
    @rule()
    def helper_returns(self) -> None:
        """At any moment."""
        self.rig.finish()

    @rule()
    def late_result(self) -> None:
        """A helper that was ended answers after all; the rig holds that nothing changes."""
        self.rig.finish_late()

    @rule(wait=waits, min_validity=validities)
    def owner_asks(self, wait: float, min_validity: float | None) -> None:
        """GetToken."""
        self._by_caller(lambda: self.rig.ask(wait=wait, min_validity=min_validity))

    @rule(wait=waits, min_validity=validities, uid=peers)
    def peer_asks(self, wait: float, min_validity: float | None, uid: int) -> None:
        """GetToken by a uid that may only ask."""
        self._by_caller(lambda: self.rig.ask(wait=wait, min_validity=min_validity, uid=uid), uid)

    @rule(wait=waits, proof=st.sampled_from([None, *UNKNOWN]))
    def owner_rejects(self, wait: float, proof: Proved | Failed | None) -> None:
        """RejectToken of the token in force."""
        self.rig.d7.proof = proof
        self._by_caller(lambda: self.rig.reject(self._held(), wait=wait))

    @rule(uid=peers, times=st.integers(1, 30), proof=st.sampled_from([None, *UNKNOWN]))
    def peer_rejects(self, uid: int, times: int, proof: Proved | Failed | None) -> None:
        """A peer that rejects whatever it gets, once it is old enough to be replaced."""
        self.rig.d7.proof = proof
        for _ in range(times):
            self._by_caller(lambda: self.rig.reject(self._held(), wait=0, uid=uid), uid)
            self.rig.run(61)

    @rule(times=st.integers(1, 40), uid=st.sampled_from([None, *PEERS]))
    def asks_in_a_loop(self, times: int, uid: int | None) -> None:
        """A script that wants a token younger than is sensible."""
        for _ in range(times):
            self._by_caller(lambda: self.rig.ask(wait=0, min_validity=590, uid=uid), uid)
            self.rig.run(20)

    @rule(wait=waits, times=st.sampled_from([1, 1, 1, 40]))
    def renew(self, wait: float, times: int) -> None:
        """RenewToken, by the owner, once or in a loop."""
        for _ in range(times):
            self._by_caller(lambda: self.rig.renew(wait=wait))
            if times > 1:
                self.rig.run(11)

    @precondition(lambda self: self.rig.writable and self.rig.state.budget.writable)
    @rule(times=st.sampled_from([2, 40]))
    def restarts_in_a_loop(self, times: int) -> None:
        """`Restart=always` with something that makes it die."""
        for _ in range(times):
            self.restart(off=0.5, reboot=False)
            self.rig.settle()

    @rule(fault=st.sampled_from([None, *FAULTS]), wait=waits)
    def to_the_brink(self, fault: Failed | None, wait: float) -> None:
        """Asking around the very end of the token in force, in good weather and bad."""
        grant = self.rig.state.grant
        self.rig.d7.fault = fault
        if grant is None or grant.expires is None:
            return
        for rest in (20.0, 2.0, 1.0, 0.0, -1.0, -50.0):
            self.rig.run(max(0.0, grant.expires - rest - self.rig.now.boot))
            self.rig.ask(wait=wait)
            self.rig.ask(wait=0, min_validity=0)

    def _held(self) -> str:
        grant = self.rig.state.grant
        return "none" if grant is None else grant.access_token.reveal()

    def _by_caller(self, call: Any, uid: int | None = None) -> None:
        """What a caller causes beyond what the agent would do by itself keeps to the caller's share."""
        rig = self.rig
        rig.feed(Ticked())
        held, before = lifecycle.alive(rig.state.grant, rig.now.boot), rig.logins
        left = level_left(rig.d7.logins, rig.clock.true)
        call()
        if held is None or rig.logins == before:
            return
        assert left > 10.999, "a caller spent the reserve"
        if uid is not None:
            recent = [at for at in self.caused[uid] if at > rig.clock.true - 3600]
            assert len(recent) < 3, "a peer caused a fourth login within the hour"
            self.caused[uid] = [*recent, rig.clock.true]

    @rule(seconds=st.sampled_from([0.0, 60.0, 5000.0]), opened=st.sampled_from([True, True, False]))
    def lock(self, seconds: float, opened: bool) -> None:
        """Lock: the remembered token is deleted as well. Unlocked again soon, or later by `calm`."""
        self.rig.taken()
        self.rig.store.remembered = None
        self.rig.feed(LockedUp())
        self.rig.run(seconds)
        if opened:
            self.rig.feed(Unlocked())

    @rule(max_age=st.sampled_from([600.0, 43200.0]))
    def edit_profile(self, max_age: float) -> None:
        """Another max_age."""
        self.rig.configure(Policy(max_age=max_age))

    @rule()
    def edit_credential(self) -> None:
        """Another base URL, or the secret's file was edited."""
        self.rig.taken()
        self.rig.configure(other=True)

    @precondition(lambda self: not self.rig.state.locked and self.rig.state.phase != "store")
    @rule(verify=st.booleans())
    def store_credential(self, verify: bool) -> None:
        """`d7agent login`, within the budget as the service holds it."""
        rig = self.rig
        if verify and lifecycle.caller_login(rig.state, None, rig.now.boot, backoff=False) > rig.now.boot:
            return
        rig.taken()
        rig.store.holds = True
        rig.begin_store(login=verify)

    @precondition(lambda self: not self.rig.state.locked and self.rig.state.phase != "store")
    @rule(again=st.sampled_from([True, True, False]))
    def forget(self, again: bool) -> None:
        """`d7agent logout`, and mostly a `login` with the same credential soon after."""
        self.rig.taken()
        self.rig.begin_store(login=False)
        self.rig.job, self.rig.store.holds, self.rig.store.remembered = None, False, None
        self.rig.feed(Forgotten())
        if again:
            self.store_credential(verify=True)

    @precondition(lambda self: self.rig.writable and self.rig.state.budget.writable)
    @rule(off=st.sampled_from([0.1, 10.0, 3000.0]), reboot=st.booleans())
    def restart(self, off: float, reboot: bool) -> None:
        """The agent is killed and comes back; over a reboot the wall clock, set right by then, is all there is."""
        self.rig.taken()
        if reboot:
            self.rig.clock.offset = 0.0
        if reboot and self.stepped:  # nobody can know how long ago the state file was written
            self.rig.d7.logins.clear()
        self.caused = {uid: [] for uid in PEERS}
        self.rig.restart(off=off, reboot=reboot)

    @rule(fault=st.sampled_from(FAULTS), lasting=st.booleans())
    def login_breaks(self, fault: Failed, lasting: bool) -> None:
        """D7 or the way to it."""
        if lasting:
            self.rig.d7.fault = fault
        else:
            self.rig.d7.faults = [fault]

    @rule(proof=st.sampled_from(UNKNOWN))
    def proof_breaks(self, proof: Proved | Failed) -> None:
        """Nobody can say whether a token works."""
        self.rig.d7.proof = proof

    @rule()
    def d7_heals(self) -> None:
        """All works again."""
        self.rig.d7.heal()

    @rule(rest=st.sampled_from([0.0, 1.0, 500.0]))
    def calm(self, rest: float) -> None:
        """Everything works, and a person ends what only a person can: without such pauses there is no good token."""
        self._end_all_trouble()
        self.rig.settle()
        if self.rig.state.refusal is not None or self.rig.state.missing:
            self.rig.renew()
        self.rig.run(rest)

    @rule(rest=st.sampled_from([1.0, 500.0]))
    def calmer(self, rest: float) -> None:
        """More of it."""
        self.calm(rest)

    def _end_all_trouble(self) -> None:
        rig = self.rig
        rig.d7.heal()
        rig.store.locked = rig.store.away = False
        rig.store.holds = rig.writable = True
        rig.feed(Unlocked())

    @rule()
    def app_deleted(self) -> None:
        """In the control panel: every token is dead."""
        self.rig.d7.app = False

    @rule()
    def token_revoked(self) -> None:
        """D7 no longer accepts the token in force."""
        self.rig.d7.revoked.add(self._held())

    @rule(locked=st.booleans(), away=st.booleans())
    def store_changes(self, locked: bool, away: bool) -> None:
        """The desktop is locked or unlocked, its daemon stopped."""
        self.rig.store.locked, self.rig.store.away = locked, away

    @rule(writable=st.booleans())
    def disk(self, writable: bool) -> None:
        """The state file can be written, or not."""
        self.rig.writable = writable

    @invariant()
    def within_its_budget(self) -> None:
        """30 logins and 30 an hour, over all restarts; none of these tokens needs more."""
        if hasattr(self, "rig"):
            assert within_budget(self.rig.d7.logins)

    def teardown(self) -> None:
        """Every outage ends: with D7 and the store well again, a good token comes within the backoff's cap."""
        if not hasattr(self, "rig"):
            return
        rig = self.rig
        self._end_all_trouble()
        rig.settle()
        for _ in range(3):
            if rig.state.refusal is not None or rig.state.missing:  # which a person has to end
                rig.renew()
            if rig.state.grant is not None and not rig.d7.good(self._held()):  # which someone has to report
                rig.reject(self._held())
            rig.run(HEALED_WITHIN)
        caller = rig.ask(wait=30)  # D7 may still hand out the old token in the very second of its end
        rig.run(30)
        assert caller.token not in rig.d7.revoked


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=300, stateful_step_count=40, deadline=None, derandomize=True, database=None, print_blob=False
)
