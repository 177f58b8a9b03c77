"""What is worth a line below the status table, and what to do about it."""

from collections.abc import Iterator
from typing import Any, Final

from d7agent.cli.spans import span

SKEW: Final = 60  # seconds of difference to D7's clock from which on it is worth a word
STATES: Final = {
    "fresh": "fresh",
    "stale": "stale",
    "expired": "expired",
    "rejected": "rejected by D7",
    "empty": "no token yet",
    "no_credential": "no credential",
    "locked": "locked",
}


def state_word(state: str) -> str:
    """The state for people."""
    return STATES.get(state, state)


def notes(profile: dict[str, Any], now: float) -> Iterator[tuple[str, str]]:
    """Colour and text of each thing a user should know of this profile; `now` in unix seconds."""
    option = "" if profile.get("profile") == "default" else f" {profile.get('profile')}"
    error = profile.get("last_error")
    if isinstance(error, dict):
        code = f" ({error['code']})" if error.get("code") else ""
        ago = f"{span(now - error['at'])} ago" if isinstance(error.get("at"), int) else "lately"
        yield "red", f"{ago}: {error.get('message')}{code}"
    if hint := _hint(str(profile.get("state")), error, option):
        yield "cyan", f"next: {hint}"
    for sink in profile.get("sinks", []):
        if not sink.get("ok"):
            yield "red", f"always-fresh file {sink.get('path')}: {sink.get('error')}"
    if profile.get("misreports"):
        yield "yellow", f"tokens that D7 accepts, and that a program reported as refused: {profile['misreports']}"
    if isinstance(profile.get("skew"), int) and abs(profile["skew"]) >= SKEW:
        yield "yellow", f"this machine's clock differs from D7's by {span(abs(profile['skew']))}: set it"
    if str(profile.get("store", "")).startswith("environment"):
        yield "yellow", "the environment store keeps the secret in the agent's own environment, where you put it"


def _hint(state: str, error: object, option: str) -> str:
    reason = error.get("reason") if isinstance(error, dict) else None
    by_reason = {
        "store_locked": "unlock the keyring; the agent notices by itself",
        "store_missing": "make the store reachable, or choose another with `d7agent login --store`",
        "store_unreachable": "make the store reachable; the agent tries again by itself",
        "budget": "the login budget is spent and fills up again by itself; look for what asks for so many logins",
    }
    by_state = {
        "rejected": f"store a valid credential with `d7agent login{option}`",
        "no_credential": f"store one with `d7agent login{option}`",
        "locked": "open the agent with `d7agent unlock`",
    }
    trying = "the agent tries again by itself; `d7agent renew` tries at once" if error else ""
    return by_state.get(state) or by_reason.get(str(reason)) or trying
