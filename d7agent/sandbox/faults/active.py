"""The faults that are set: read from a SPEC, played in the order they were set, each as often as asked."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from d7agent.sandbox.faults.kind import FAULTS, FaultKind, Options
from d7agent.sandbox.settings import BadSetting

TARGETS: Final = ("login", "api", "both")
SPEC_HINT: Final = "a SPEC is NAME or NAME:OPTION=VALUE,… (also on=login|api|both, times=N), or a JSON object with name"


@dataclass
class Fault:
    """A fault that is set. `times` None: until it is removed. `played` counts the requests it has met."""

    kind: FaultKind
    options: Options
    on: str
    times: int | None
    played: int = 0

    def meets(self, target: str) -> bool:
        """Whether it applies to the next request of this target."""
        return self.on in (target, "both") and (self.times is None or self.played < self.times)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        shown = {"name": self.kind.name, "on": self.on, "times": self.times, "played": self.played}
        return {**shown, "options": str(self.options)}


class Faults:
    """A queue: the first fault that meets a request is played alone. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._list: list[Fault] = []

    def add(self, spec: str, **options: object) -> Fault:
        """Sets a fault: name or SPEC, options (`on` and `times` too) laid over. BadSetting if it makes no sense."""
        name, given = _parse(spec)
        fault = _make(name, {**given, **options})
        with self._lock:
            self._list.append(fault)
        return fault

    def take(self, target: str) -> Fault | None:
        """The fault to play on this request, counted as played."""
        with self._lock:
            fault = next((one for one in self._list if one.meets(target)), None)
            if fault is not None:
                fault.played += 1
            return fault

    def clear(self, name: str | None = None) -> None:
        """Removes every fault, or all of this name."""
        with self._lock:
            self._list = [one for one in self._list if name is not None and one.kind.name != name]

    def active(self) -> list[Fault]:
        """Those that still wait for requests."""
        with self._lock:
            return [one for one in self._list if one.times is None or one.played < one.times]


def _parse(spec: str) -> tuple[str, Mapping[str, object]]:
    if spec.lstrip().startswith("{"):
        return _parse_json(spec)
    name, _, rest = spec.partition(":")
    given: dict[str, object] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise BadSetting(f"fault {name!r}: {part!r} is no OPTION=VALUE", SPEC_HINT)
        given[key.strip()] = value
    return name.strip(), given


def _parse_json(spec: str) -> tuple[str, Mapping[str, object]]:
    try:
        given = json.loads(spec)
    except (ValueError, RecursionError):
        raise BadSetting("a fault looks like JSON but is none", SPEC_HINT) from None
    return str(given.pop("name", "")), given


def _make(name: str, given: dict[str, object]) -> Fault:
    kind = FAULTS.get(name)
    if kind is None:
        raise BadSetting(f"there is no fault {name!r}", "`d7agent sandbox --list-faults` shows them")
    on = given.pop("on", None) or "login"
    if on not in TARGETS or (kind.token and on != "login"):
        allowed = "login" if kind.token else ", ".join(TARGETS)
        raise BadSetting(f"fault {name!r} cannot be on {on!r}", f"it can be on {allowed}")
    return Fault(kind, _options(kind, given), str(on), times=_times(name, given))


def _options(kind: FaultKind, given: Mapping[str, object]) -> Options:
    return kind.options({key: value for key, value in given.items() if key != "times"})


def _times(name: str, given: Mapping[str, object]) -> int | None:
    times = given.get("times")
    if times is None:
        return None
    if not str(times).isdecimal() or int(str(times)) == 0:
        raise BadSetting(f"fault {name!r}: times={times} makes no sense", "it must be a whole number above 0")
    return int(str(times))
