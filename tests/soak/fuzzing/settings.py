"""What people write into the configuration: any text, read whole or refused with words, and edited or left alone.

An input is config.toml, a line of `---`, and a profile's file.
"""

import tomllib
from collections.abc import Callable
from typing import Final

from d7agent.core.config import Config, parse
from d7agent.core.errors import ConfigError
from d7agent.core.paths import user_paths
from d7agent.core.toml_lines import set_keys
from tests.soak.broken import need

PATHS: Final = user_paths({"HOME": "/h", "XDG_RUNTIME_DIR": "/r"}, 1000, lambda _: False)
CHANGES: Final = {"base_url": "http://127.0.0.1:1", "store": "keyring"}

LINES: Final = (
    *('base_url = "http://127.0.0.1"', "base_url = 1", 'store = "directory:~/x"', "store = 'command:a \"b'"),
    *('max_age = "1h30m"', "max_age = 5", "logins_per_hour = 0", "remember_token = 1", 'client_id = ""'),
    *('[[sinks]]\npath = "/a"', 'path = "%t/a"', 'mode = "0666"', 'format = "header"', 'group = "g"'),
    *('default_profile = "p"', '[access]\nusers = ["x", "y"]', 'units = ["a.service"]', "[hooks]"),
    *('on_rejected = ["/x", "%h"]', "x.y.z = [1, {a = 1}]", 'x = ""' + '"', "# words", "---", "[a]"),
)

Parse = Callable[..., Config]


class Settings:
    """The target. `parse` can be another, to see that a broken one is found."""

    starts, parts = b"\n", tuple(f"{line}\n".encode() for line in LINES)

    def __init__(self, parse: Parse = parse) -> None:
        self._parse = parse

    def __call__(self, data: bytes) -> None:
        """One input. Raises Broken, or whatever comes out that should not."""
        try:
            text = data.decode()
        except UnicodeDecodeError:  # refused before these are asked: agent.reading
            return
        config, _, profile = text.partition("\n---\n")
        try:
            found = self._parse(("config.toml", config), [("p.toml", profile)], PATHS.expand)
        except ConfigError as error:
            need(all(line.startswith(("config.toml", "p.toml")) for line in str(error).split("\n")), f"where? {error}")
        else:
            need(list(found.profiles) == ["p"], "another profile than the one there is")
        _edit(profile)


def _edit(text: str) -> None:
    try:
        edited = set_keys(text, CHANGES)
    except ValueError:
        return
    need(tomllib.loads(edited) == tomllib.loads(text) | CHANGES, "an edit that changes something else")
    need(set_keys(edited, CHANGES) == edited, "an edit that is not at rest")


one_input = Settings()
