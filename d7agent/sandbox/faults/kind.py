"""What a kind of fault is, and the one table of all kinds."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, Protocol

from d7agent.sandbox.answers import Answer
from d7agent.sandbox.settings import BadSetting

Default = int | float | str | tuple[str, ...]
Target = Literal["login", "api", "both"]


class Mint(Protocol):
    """Makes a signed token of the caller's application with these claims added or replaced."""

    def __call__(self, **claims: object) -> str:
        """The token."""


class Options:
    """The values of one fault's options, each of the type its default has."""

    def __init__(self, values: Mapping[str, int | float | str]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        """A text or one of the choices."""
        return str(self._values[name])

    def number(self, name: str) -> float:
        """A number, not negative unless its default is."""
        return float(self._values[name])

    def whole(self, name: str) -> int:
        """A whole number."""
        return int(self._values[name])

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self._values.items())


@dataclass(frozen=True)
class Play:
    """What a fault has to work with: its options, new tokens, the sandbox's URL, the time and the healthy answer.

    `healthy` does what was asked for (records a message, issues a token): a fault that answers otherwise leaves it.
    """

    healthy: Callable[[], Answer]
    options: Options
    mint: Mint
    url: str
    now: float

    @cached_property
    def answer(self) -> Answer:
        """The healthy answer."""
        return self.healthy()


@dataclass(frozen=True)
class FaultKind:
    """A fault by name. `defaults` gives the options: a tuple lists choices, the first being the default.

    `token` kinds change the token of a good login and leave everything else alone.
    """

    name: str
    about: str
    defaults: Mapping[str, Default]
    play: Callable[[Play], Answer]
    token: bool

    def options(self, given: Mapping[str, object]) -> Options:
        """The defaults with `given` laid over them. BadSetting on an unknown name or a value of the wrong type."""
        for name in given:
            if name not in self.defaults:
                known = ", ".join([*self.defaults, "on", "times"])
                raise BadSetting(f"fault {self.name!r} has no option {name!r}", f"it takes {known}")
        values = {name: _value(self.name, name, default, given.get(name)) for name, default in self.defaults.items()}
        return Options(values)

    def usage(self) -> str:
        """Its options as they are written in a SPEC."""
        shown = {name: "|".join(value) if isinstance(value, tuple) else value for name, value in self.defaults.items()}
        usage = ",".join(f"{name}={value}" for name, value in shown.items())
        return usage.encode("unicode_escape").decode("ascii")


FAULTS: Final[dict[str, FaultKind]] = {}


def fault(
    name: str, about: str, *, token: bool = False, **defaults: Default
) -> Callable[[Callable[[Play], Answer]], Callable[[Play], Answer]]:
    """Enters a function into the table under this name."""

    def enter(play: Callable[[Play], Answer]) -> Callable[[Play], Answer]:
        FAULTS[name] = FaultKind(name, about, defaults, play, token)
        return play

    return enter


def _value(kind: str, name: str, default: Default, given: object) -> int | float | str:
    first = default[0] if isinstance(default, tuple) else default
    if given is None:
        return first
    try:
        value = type(first)(str(given))
    except (TypeError, ValueError):
        raise _bad(kind, name, f"a number, like {first}") from None
    if isinstance(default, tuple) and value not in default:
        raise _bad(kind, name, "one of " + ", ".join(default))
    if isinstance(value, int | float) and not math.isfinite(value):
        raise _bad(kind, name, "finite")
    return value


def _bad(kind: str, name: str, wanted: str) -> BadSetting:
    return BadSetting(f"fault {kind!r}: option {name!r} has a value it cannot have", f"it must be {wanted}")
