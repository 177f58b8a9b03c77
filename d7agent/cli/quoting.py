"""Shell code that sets variables, quoted so that no value can be read as code."""

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Final

SAFE: Final = re.compile(r"[A-Za-z0-9_.,:/@+-]+")  # nothing that any shell expands, at whatever place
DOTENV: Final = re.compile(r"[A-Za-z0-9_.,:/@+=~%-]+")
VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LIKE: Final = {"dash": "sh", "ash": "sh", "ksh": "sh", "mksh": "sh", "busybox": "sh", "tcsh": "csh"}


def quote_sh(value: str) -> str:
    """For sh and all its descendants."""
    return "'" + value.replace("'", "'\"'\"'") + "'"


def quote_csh(value: str) -> str:
    """For csh and tcsh, which expand history even between single quotes."""
    return quote_sh(value).replace("!", "\\!")


def quote_fish(value: str) -> str:
    """For fish, where a backslash escapes between single quotes."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_dotenv(value: str) -> str:
    """For .env files: bare where every reader agrees (docker takes quotes as they are), else between double quotes."""
    if DOTENV.fullmatch(value):
        return value
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'


def bare(quote: Callable[[str], str], value: str) -> str:
    """The value as it is where no shell sees anything in it, else quoted."""
    return value if SAFE.fullmatch(value) else quote(value)


LINES: Final[dict[str, Callable[[str, str], str]]] = {
    "sh": lambda name, value: f"{name}={bare(quote_sh, value)}; export {name};",
    "bash": lambda name, value: f"export {name}={bare(quote_sh, value)};",
    "zsh": lambda name, value: f"export {name}={bare(quote_sh, value)};",
    "csh": lambda name, value: f"setenv {name} {bare(quote_csh, value)};",
    "fish": lambda name, value: f"set -gx {name} {bare(quote_fish, value)};",
    "dotenv": lambda name, value: f"{name}={quote_dotenv(value)}",
}
SHELLS: Final = ("sh", "bash", "zsh", "csh", "fish")
FORMS: Final = (*LINES, "json")


def assignments(form: str, values: Mapping[str, str]) -> str:
    """Code of that form which sets (and exports) every variable, a line each; json: one object on one line."""
    if form == "json":
        return json.dumps(dict(values), separators=(",", ":")) + "\n"
    return "".join(LINES[form](name, value) + "\n" for name, value in values.items())


def guess_shell(env: Mapping[str, str]) -> str:
    """The form for the user's login shell ($SHELL); sh where it says nothing known."""
    name = os.path.basename(env.get("SHELL", ""))
    name = LIKE.get(name, name)
    return name if name in SHELLS else "sh"
