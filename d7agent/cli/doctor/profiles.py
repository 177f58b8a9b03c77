"""How each profile does, in the words of `check` and `status`."""

from collections.abc import Iterator
from typing import Final

from d7agent.cli.advice import notes
from d7agent.cli.doctor.finding import Finding, Level
from d7agent.cli.doctor.scene import Scene
from d7agent.cli.verdicts import CRITICAL, OK, WARNING, Limits, Profile, effective, judge
from d7agent.core.clock import SystemClock

LEVELS: Final[dict[int, Level]] = {OK: "ok", WARNING: "warn", CRITICAL: "error"}


def check(scene: Scene) -> Iterator[Finding]:
    """A finding for each profile that the agent has."""
    for profile in scene.profiles:
        verdict = judge(profile, effective(profile, Limits()))
        level = LEVELS.get(verdict.level, "warn")
        remedy = _remedy(profile) if level != "ok" else ""
        yield Finding("profile", level, f"{profile.get('profile')}: {verdict.text}", remedy)


def _remedy(profile: Profile) -> str:
    """The next step that `status` shows."""
    texts = (text for _, text in notes(profile, SystemClock().now().wall))
    return next((text.removeprefix("next: ") for text in texts if text.startswith("next: ")), "see `d7agent status`")
