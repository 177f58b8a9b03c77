"""The configuration: from the texts of the files to checked structs, whole or not at all. `agent.files` reads them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

from msgspec import Struct

from d7agent.core import checks
from d7agent.core.checks import Expand
from d7agent.core.errors import ConfigError
from d7agent.core.model import DEFAULT_BASE_URL, DEFAULT_PROFILE
from d7agent.core.tables import Rule, Source

DEFAULT_MAX_AGE: Final = 12 * 3600.0  # seconds; a token without `exp` is renewed twice a day

SinkFormat = Literal["token", "header", "curl", "env", "json"]


class Sink(Struct, frozen=True):
    """An always-fresh file. `path` is absolute, its specifiers (%t, %h, ~) expanded; `mode` as os.chmod takes it."""

    path: str
    format: SinkFormat = "env"
    mode: int = 0o600
    group: str | None = None


class Profile(Struct, frozen=True):
    """One profile. `max_age` in seconds. `path`: the file it came from, "" for the built-in default."""

    name: str = DEFAULT_PROFILE
    base_url: str = DEFAULT_BASE_URL
    store: str = "keyring"
    client_id: str | None = None
    max_age: float = DEFAULT_MAX_AGE
    logins_per_hour: int | None = None
    remember_token: bool = True
    sinks: tuple[Sink, ...] = ()
    path: str = ""


class Access(Struct, frozen=True):
    """Who besides owner and root may ask; in effect on the system agent only."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    units: tuple[str, ...] = ()


class Hooks(Struct, frozen=True):
    """Programs to run on events, each an argv; empty: none."""

    on_rejected: tuple[str, ...] = ()
    on_refreshed: tuple[str, ...] = ()
    on_recovered: tuple[str, ...] = ()


class Config(Struct, frozen=True):
    """All that the files say. `profiles` by name, never empty."""

    profiles: dict[str, Profile]
    default_profile: str = DEFAULT_PROFILE
    access: Access = Access()
    hooks: Hooks = Hooks()


_CONFIG_RULES: Final = {
    "default_profile": Rule(str, checks.profile_name),
    "access": Rule(dict[str, Any]),
    "hooks": Rule(dict[str, Any]),
}
_ACCESS_RULES: Final = {
    "users": Rule(list[str], checks.users),
    "groups": Rule(list[str], checks.users),
    "units": Rule(list[str], checks.units),
}
_HOOK_RULES: Final = {name: Rule(list[str], checks.argv) for name in Hooks.__struct_fields__}


def _profile_rules(expand: Expand) -> dict[str, Rule]:
    return {
        "base_url": Rule(str, checks.base_url),
        "store": Rule(str, lambda value: checks.store(value, expand)),
        "client_id": Rule(str, checks.text),
        "max_age": Rule(str | int, checks.max_age),
        "logins_per_hour": Rule(int, checks.logins_per_hour),
        "remember_token": Rule(bool),
        "sinks": Rule(list[dict[str, Any]]),
    }


def _sink_rules(expand: Expand) -> dict[str, Rule]:
    return {
        "path": Rule(str, lambda value: checks.file_path(value, expand)),
        "format": Rule(str, checks.one_of(*get_args(SinkFormat))),
        "mode": Rule(str, checks.mode),
        "group": Rule(str, checks.text),
    }


def parse(config: tuple[str, str] | None, profiles: Sequence[tuple[str, str]], expand: Expand) -> Config:
    """The configuration that these files make, each given as (path, text).

    A profile's name is its file's name without `.toml`. Of two files for one name the first counts and the other is not
    looked at: the admin's in /etc/d7agent stands above what `login` wrote. Without a profile file there is one profile
    in the keyring, under the default profile's name. `expand`: see `core.paths.Paths.expand`.
    Raises ConfigError, whose text has a line for every problem in every file: `FILE:LINE: key: what is wrong`.
    """
    sources: list[Source] = []
    fields: dict[str, Any] = {}
    if config is not None:
        sources.append(Source(*config))
        fields = _read_config(sources[0])
    found: dict[str, Profile] = {}
    taken: dict[str, str] = {}
    for path, text in profiles:
        name = path.rpartition("/")[2].removesuffix(".toml")
        if name not in found:
            source = Source(path, text)
            sources.append(source)
            found[name] = _read_profile(source, name, expand, taken)
    if config is not None:
        _check_default(sources[0], fields, found)
    problems = [problem for source in sources for problem in source.problems]
    if problems:
        raise ConfigError("\n".join(problems))
    if not found:
        name = fields.get("default_profile", DEFAULT_PROFILE)
        return Config(profiles={name: Profile(name=name)}, **fields)
    return Config(profiles=found, **fields)


def _read_config(source: Source) -> dict[str, Any]:
    fields = source.read(source.table, _CONFIG_RULES)
    if "access" in fields:
        fields["access"] = Access(**source.read(fields["access"], _ACCESS_RULES, ("access",)))
    if "hooks" in fields:
        fields["hooks"] = Hooks(**source.read(fields["hooks"], _HOOK_RULES, ("hooks",)))
    return fields


def _read_profile(source: Source, name: str, expand: Expand, taken: dict[str, str]) -> Profile:
    try:
        checks.profile_name(name)
    except ValueError as error:
        source.say((), f"the file's name (without .toml) {error}")
    fields = source.read(source.table, _profile_rules(expand))
    sinks = [_read_sink(source, place, sink, expand, taken) for place, sink in enumerate(fields.pop("sinks", ()))]
    return Profile(name=name, path=source.path, sinks=tuple(sink for sink in sinks if sink), **fields)


def _read_sink(
    source: Source, place: int, table: Mapping[str, Any], expand: Expand, taken: dict[str, str]
) -> Sink | None:
    """`taken`: which file's sink writes to which path; two on one path would overwrite each other for ever."""
    fields = source.read(table, _sink_rules(expand), ("sinks", place))
    if "path" not in table:
        source.say(("sinks", place), "has no path")
    if "path" not in fields:
        return None
    if fields["path"] in taken:
        source.say(
            ("sinks", place, "path"), f"{fields['path']} is written by a sink in {taken[fields['path']]} already"
        )
    taken.setdefault(fields["path"], source.path)
    return Sink(**fields)


def _check_default(source: Source, fields: Mapping[str, Any], found: Mapping[str, object]) -> None:
    name = fields.get("default_profile")
    if name and found and name not in found:
        source.say(("default_profile",), f"there is no profile {name!r}; there are: {', '.join(found)}")
