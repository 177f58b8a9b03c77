"""The status as OpenMetrics 1.0, in the part of it that Prometheus's older text format shares.

node_exporter's textfile collector reads that one: so there are no timestamps, and no types but gauge and counter.
"""

import os
from collections.abc import Iterable
from typing import Any, Final, get_args

from msgspec import Struct

from d7agent.cli.output import Failure
from d7agent.core.model import State

MODE: Final = 0o644  # node_exporter runs as a user of its own; nothing in it is secret
Status = dict[str, Any]
Labels = dict[str, object]
Sample = tuple[Labels, float]


class Family(Struct, frozen=True):
    """One metric: its samples have a value each, told apart by labels. A counter's name gets `_total` behind it."""

    name: str
    help: str
    samples: list[Sample]
    kind: str = "gauge"
    unit: str = ""

    def lines(self) -> Iterable[str]:
        """The family's lines; none where it has no sample."""
        if not self.samples:
            return
        full = f"d7agent_{self.name}"
        yield f"# HELP {full} {_escaped(self.help)}"
        yield f"# TYPE {full} {self.kind}"
        if self.unit:
            yield f"# UNIT {full} {self.unit}"
        for labels, value in self.samples:
            shown = ",".join(f'{name}="{_escaped(str(text))}"' for name, text in labels.items())
            yield f"{full}{'_total' if self.kind == 'counter' else ''}{f'{{{shown}}}' if shown else ''} {value:.15g}"


def render(status: Status) -> str:
    """The exposition of a reply of GetStatus."""
    agent = status.get("agent", {})
    return _text([_up(1), *_of_agent(agent), *_of_callers(agent), *_of_profiles(status.get("profiles", []))])


def down() -> str:
    """The exposition where no agent answers."""
    return _text([_up(0)])


def write(path: str, text: str) -> None:
    """Put the text at the path, whole or not at all, mode 0644. Raises Failure; then the former file is still there."""
    from d7agent.agent.atomic import write_atomic

    path = os.path.abspath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise Failure(f"{path} is no regular file", "--output takes the place of a file; without it stdout is written")
    if not os.path.isdir(os.path.dirname(path)):
        raise Failure(f"{os.path.dirname(path)}: there is no such folder", "make it, or name another with --output")
    write_atomic(path, text.encode(), MODE)


def _text(families: list[Family]) -> str:
    return "\n".join([*(line for family in families for line in family.lines()), "# EOF\n"])


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _up(value: int) -> Family:
    return Family("up", "Whether the agent answered when this was written.", [({}, value)])


def _of_agent(agent: Status) -> list[Family]:
    about = {"version": agent.get("version", ""), "protocol": agent.get("protocol", "")}
    return [
        Family("build_info", "The agent that runs; the value is always 1.", [(about, 1)]),
        _one("start_time_seconds", "When the agent started, unix seconds.", agent.get("started_at"), "seconds"),
        _one("locked", "Whether the agent is locked by a passphrase.", agent.get("locked")),
        _one("connections", "Open connections.", agent.get("connections")),
        _one("config_problems", "Faults in the configuration.", len(agent.get("config_problems") or [])),
    ]


def _one(name: str, text: str, value: object, unit: str = "") -> Family:
    return Family(name, text, [({}, value)] if isinstance(value, int | float) else [], unit=unit)


def _of_callers(agent: Status) -> list[Family]:
    """Counters by who asked, since the agent started."""
    callers = agent.get("callers", [])
    texts = {"grants": "Tokens handed out.", "rejects": "Tokens reported as refused.", "denied": "Calls refused."}
    return [
        Family(name, text, [(_who(caller), caller.get(name) or 0) for caller in callers], "counter")
        for name, text in texts.items()
    ]


def _who(caller: Status) -> Labels:
    return {"uid": caller.get("uid", ""), "unit": caller.get("unit") or "", "exe": caller.get("exe") or ""}


def _of_profiles(profiles: list[Status]) -> list[Family]:
    states = [({**_label(p), "state": s}, float(p.get("state") == s)) for p in profiles for s in get_args(State)]
    sinks = [
        ({**_label(p), "path": s.get("path")}, float(bool(s.get("ok")))) for p in profiles for s in p.get("sinks", [])
    ]
    errors = [({**_label(p), "reason": e["reason"]}, e["at"]) for p in profiles if (e := p.get("last_error"))]
    return [
        Family("profile_state", "1 for the state the profile is in, 0 for the others.", states),
        *(_each(profiles, *row) for row in GAUGES),
        _each(profiles, "serial", "tokens", "Different tokens held since the agent started.", kind="counter"),
        _each(profiles, "misreports", "misreports", "Good tokens that were reported as refused.", kind="counter"),
        Family("sink_ok", "Whether the always-fresh file could be written.", sinks),
        Family(
            "last_error_timestamp_seconds", "When the present trouble was last met.", errors, "gauge", unit="seconds"
        ),
    ]


GAUGES: Final = (
    ("valid_for", "token_left_seconds", "How long the token is still good; absent where it does not say.", "seconds"),
    ("expires_at", "token_expiry_timestamp_seconds", "When the token expires.", "seconds"),
    ("issued_at", "token_issued_timestamp_seconds", "When the token was issued.", "seconds"),
    ("refresh_at", "refresh_timestamp_seconds", "When the agent logs in next.", "seconds"),
    ("last_login", "last_login_timestamp_seconds", "When the agent last logged in.", "seconds"),
    ("failures", "login_failures", "Failed logins in a row."),
    ("logins_hour", "logins_last_hour", "Logins in the last hour."),
    ("budget_left", "login_budget_left", "Logins that the budget still allows."),
    ("subscribers", "subscribers", "Programs that are told of every new token."),
    ("remembered", "token_remembered", "Whether the token survives a restart of the agent."),
    ("skew", "clock_skew_seconds", "D7's clock minus this machine's.", "seconds"),
)


def _each(profiles: list[Status], key: str, name: str, text: str, unit: str = "", kind: str = "gauge") -> Family:
    """One number of every profile that has it; a counter that has not begun is 0."""
    found = [(_label(p), p.get(key, 0 if kind == "counter" else None)) for p in profiles]
    samples = [(labels, value) for labels, value in found if isinstance(value, int | float)]
    return Family(name, text, samples, kind, unit)


def _label(profile: Status) -> Labels:
    return {"profile": profile.get("profile", "")}
