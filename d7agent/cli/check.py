"""`check`: a monitoring plugin by the plugin guidelines: one line, perfdata, exit 0, 1, 2 or 3."""

from typing import Any, Final, NoReturn

import click

from d7agent.cli import options, output, verdicts
from d7agent.cli.output import Failure
from d7agent.cli.perfdata import Perf, line
from d7agent.cli.ranges import Range, parse_range
from d7agent.cli.spans import span
from d7agent.cli.verdicts import CRITICAL, OK, UNKNOWN, WARNING, WORDS, Limits, Verdict, effective, judge, worst
from d7agent.client.blocking import Agent, AgentError, InvalidParameter, NoAgent, PermissionDenied, token_of
from d7agent.core.clock import SystemClock, boot_time

LIMIT: Final = 10.0  # seconds, the guidelines' default; Nagios kills a check after 30
SHOWN: Final = 5  # profiles in trouble that the line names; a pager shows no more
CONFIGURATION: Final = "the configuration"  # among profiles, whose names have no blank
LEAST: Final = 0.05  # seconds that are always left for one more step, so that its own error is what is told

EPILOG: Final = """\b
CRITICAL  no agent, or it does not answer in time, or it refuses you; D7 refuses the credential or the token; no
          credential; the store is locked or out of reach; the token has expired or has less than 10 % of its life
          left; with --live: D7 cannot be asked.
WARNING   logins fail while the token is good; less than 15 % of its life left; the login budget is spent; a fault in
          the configuration or with an always-fresh file.
UNKNOWN   bad usage, or an answer that this version does not understand.
\b
A RANGE is of the plugin guidelines, in seconds left: --warn 900: alerts below 900; ~:10, 10:20 and @10:20 work too.
Exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
"""


class Plugin(options.Command):
    """A command that ends as the plugin guidelines want it, whatever happens: one line, status 0 to 3."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """As click's, with bad usage told as UNKNOWN."""
        try:
            return super().make_context(*args, **extra)
        except click.ClickException as error:
            _end(UNKNOWN, f"bad usage: {error.format_message()}")
        except Failure as error:
            _end(UNKNOWN, f"bad usage: {error.message}")

    def invoke(self, ctx: click.Context) -> Any:
        """As click's, with every error told in one line."""
        try:
            return super().invoke(ctx)
        except AgentError as error:
            _end(_level(error), f"{error.message} ({error.hint})")
        except (click.exceptions.Exit, BrokenPipeError):
            raise
        except Failure as error:
            _end(UNKNOWN, error.message)
        except Exception as error:  # noqa: BLE001  its text is left out: it may quote a secret
            _end(UNKNOWN, f"unexpected {type(error).__name__}; `d7agent status` may tell more")


class RangeType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A range of the plugin guidelines."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Range:
        """The range."""
        try:
            return parse_range(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(cls=Plugin, epilog=EPILOG)
@options.profile_option
@click.option("-w", "--warn", "--warning", metavar="RANGE", type=RangeType(), help="WARNING outside of it.")
@click.option("-c", "--critical", metavar="RANGE", type=RangeType(), help="CRITICAL outside of it.")
@click.option("--live", is_flag=True, help="Also ask D7 for the balance with the token; no login.")
@click.option("-t", "--timeout", type=click.FloatRange(0.1, 3600), default=LIMIT, show_default=True, metavar="SECONDS",
              help="For all of it; late is CRITICAL.")  # fmt: skip
@options.socket_option
def check(
    profile: str | None, warn: Range | None, critical: Range | None, live: bool, timeout: float, socket: str | None
) -> NoReturn:
    """Tell a monitoring system how the agent does; all profiles unless one is named, and the worst counts.

    Run it as the user whose alerts depend on the agent. It never starts an agent and never logs in.
    """
    end = boot_time() + timeout
    with Agent(socket, timeout) as agent:
        found = agent.call("GetStatus", {"profile": profile}, timeout=timeout)
        profiles = [one for one in found.get("profiles") or [] if isinstance(one, dict)]
        limits = {name(one): effective(one, Limits(warn, critical)) for one in profiles}
        judged = {name(one): judge(one, limits[name(one)]) for one in profiles}
        if live:
            judged = _live(agent, profiles, judged, end)
    problems = found.get("agent", {}).get("config_problems") or []
    judged |= {CONFIGURATION: Verdict(WARNING, str(problems[0]))} if problems else {}
    now = SystemClock().now().wall
    values = [value for one in profiles for value in _perf(one, limits[name(one)], now, prefix=profile is None)]
    if not profiles:
        _end(UNKNOWN, "the agent told of no profile")
    _end(worst([verdict.level for verdict in judged.values()]), _summary(judged, profiles, now), values)


def name(profile: dict[str, Any]) -> str:
    """The profile's name."""
    return str(profile.get("profile", ""))


def _level(error: AgentError) -> int:
    """How bad an error of the agent is. Who is refused gets no token, and his alerts are lost as if no agent ran."""
    if isinstance(error, NoAgent | PermissionDenied):
        return CRITICAL
    return UNKNOWN if isinstance(error, InvalidParameter) or type(error) is AgentError else CRITICAL


def _live(agent: Agent, profiles: list[dict[str, Any]], judged: dict[str, Verdict], end: float) -> dict[str, Verdict]:
    """The judgements with what D7 says to each profile's token, where there is one to ask with."""
    from d7agent.cli.balance import prove

    after = dict(judged)
    tokens: dict[str, tuple[str, str]] = {}
    for one in profiles:
        if one.get("state") not in ("fresh", "stale"):
            continue
        try:
            token = token_of(agent.call("GetToken", {"profile": name(one), "max_wait": 0}, timeout=_left(end)))
        except AgentError as error:
            after[name(one)] = _joined(judged[name(one)], Verdict(_level(error), error.message))
        else:
            tokens[name(one)] = (str(one.get("base_url")), str(token["access_token"]))
    answers = prove(tokens, _left(end)) if tokens else {}
    return after | {who: _joined(judged[who], answer) for who, answer in answers.items()}


def _left(end: float) -> float:
    return max(end - boot_time(), LEAST)


def _joined(status: Verdict, live: Verdict) -> Verdict:
    """Both judgements as one: the live one is told, too, where it is no worse."""
    level = worst([status.level, live.level])
    told = [verdict.text for verdict in (status, live) if verdict.level == level or verdict is live]
    return Verdict(level, ", ".join(told))


def _summary(judged: dict[str, Verdict], profiles: list[dict[str, Any]], now: float) -> str:
    level = worst([verdict.level for verdict in judged.values()])
    if level == OK and len(profiles) > 1:
        return f"{len(profiles)} profiles: " + _listed([f"{who} {verdict.text}" for who, verdict in judged.items()])
    if level == OK:
        ((who, verdict),) = judged.items()
        return f"{who}: {verdict.text}, {_history(profiles[0], now)}"
    bad = sorted((item for item in judged.items() if item[1].level != OK), key=lambda item: -_rank(item[1]))
    count = sum(1 for who, _ in bad if who != CONFIGURATION)
    several = f"{count} of {len(profiles)} profiles: " if count and len(profiles) > 1 else ""
    return several + _listed([f"{who}: {verdict.text}" for who, verdict in bad])


def _rank(verdict: Verdict) -> int:
    return verdicts.SEVERITY[verdict.level]


def _listed(texts: list[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more


def _history(profile: dict[str, Any], now: float) -> str:
    at, logins = profile.get("last_login"), profile.get("logins_hour", 0)
    last = f"last login {span(now - at)} ago" if isinstance(at, int) else "no login yet"
    return f"{last}, {logins} login{'s' * (logins != 1)} in the last hour"


def _perf(profile: dict[str, Any], limits: Limits, now: float, *, prefix: bool) -> list[Perf]:
    """The profile's values. Labels begin with its name unless it was asked for, so that a further one changes none."""
    begin = f"{name(profile)}_" if prefix else ""
    left, last = profile.get("valid_for"), profile.get("last_login")
    warn, critical = (limit.text if limit else "" for limit in (limits.warn, limits.critical))
    return [
        Perf(f"{begin}left", left if isinstance(left, int) else None, "s", warn, critical),
        Perf(f"{begin}since_login", max(0, int(now - last)) if isinstance(last, int) else None, "s"),
        Perf(f"{begin}failures", profile.get("failures", 0)),
        Perf(f"{begin}logins_hour", profile.get("logins_hour", 0)),
    ]


def _end(level: int, text: str, values: list[Perf] | None = None) -> NoReturn:
    output.out(line(WORDS[level], output.one_line(text), values or []))
    raise click.exceptions.Exit(level)
