"""What to write in place of a token, in the language of the file: the line asks the agent, and fails without one."""

import os
import re
import shutil
import sys
from typing import Final

from d7agent.cli.leaks import HIDDEN, Leak, without_tokens

ENDINGS: Final = {
    "python": (".py",),
    "shell": (".sh", ".bash", ".zsh", ".ksh"),
    "php": (".php", ".inc", ".phtml"),
    "javascript": (".js", ".mjs", ".cjs", ".ts"),
    "systemd": (".service", ".socket", ".timer", ".conf"),
}
SHEBANGS: Final = {
    "python": re.compile(r"#!.*\bpython"),
    "shell": re.compile(r"#!.*\b(?:ba|da|k|z|a)?sh\b"),
    "php": re.compile(r"#!.*\bphp|<\?php"),
    "javascript": re.compile(r"#!.*\b(?:node|deno|bun)"),
}
LITERALS: Final = frozenset({"python", "php", "javascript"})  # kinds in which a token stands in quotes
UNIT: Final = re.compile(r"^\[(?:Unit|Service|Install)\]", re.MULTILINE)
SUBSTITUTES: Final = re.compile(r"#!.*\b(?:ba|z|k)sh\b")  # shells that know <(command)
NAME: Final = "d7agent"
VARIABLE: Final = "D7_API_TOKEN"
PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9_./+@:-]+")


def command() -> str:
    """How a script that has another PATH calls the d7agent that runs now."""
    beside = os.path.join(os.path.dirname(sys.executable), NAME)
    path = shutil.which(NAME) or (beside if os.access(beside, os.X_OK) else NAME)
    return path if PLAIN_PATH.fullmatch(path) else NAME


def kind_of(path: str, text: str) -> str:
    """The file's kind, one of the above or "": what it begins with counts more than its name."""
    for kind, pattern in SHEBANGS.items():
        if pattern.match(text):
            return kind
    endings = ((kind, ending) for kind, every in ENDINGS.items() for ending in every)
    found = next((kind for kind, ending in endings if path.lower().endswith(ending)), "")
    return "" if found == "systemd" and not UNIT.search(text) else found


def replacement(leak: Leak, kind: str, text: str, program: str) -> str:
    """The line to put there in place of the leak's (or, where one line cannot do, what to do). Holds no token.

    `text`: the whole file. `program`: how to call d7agent.
    """
    match kind:
        case "python":
            line = _python(leak, program)
        case "php":
            line = _in_literal(leak, f"(exec('{program} token') ?: exit(1))", " . ")
        case "javascript":
            line = _javascript(leak, program)
        case "shell":
            line = _shell(leak, text, program)
        case "systemd":
            line = _systemd(leak, text, program)
        case _:
            name = leak.name or VARIABLE
            line = f"remove the line and start the program with: {program} exec --env {name} -- PROGRAM"
    return without_tokens(line.replace(leak.text[leak.begin : leak.end], HIDDEN))


def _python(leak: Leak, program: str) -> str:
    """check_output raises where d7agent fails, so that the script ends with an error in place of sending in vain."""
    call = f'__import__("subprocess").check_output(["{program}", "token"], text=True).strip()'
    return _in_literal(leak, call, " + ")


def _javascript(leak: Leak, program: str) -> str:
    call = f'require("node:child_process").execFileSync("{program}", ["token"], {{ encoding: "utf8" }}).trim()'
    return _in_literal(leak, call, " + ")


def _in_literal(leak: Leak, call: str, plus: str) -> str:
    """The line with the token's string literal turned into the call; text beside it in the literal is kept."""
    text = leak.text.rstrip("\r")
    begin = max(text.rfind(quote, 0, leak.begin) for quote in "\"'`")
    if begin < 0 or (end := text.find(text[begin], leak.end)) < 0:
        return f"{text[: leak.begin]}{call}{text[leak.end :]}"
    quote, first, last = text[begin], begin, end + 1
    if text[max(0, begin - 2) : begin] == quote * 2 == text[last : last + 2]:  # Python's long ones
        first, last = begin - 2, last + 2
    while first and text[first - 1] in "fFrRbBuU" and (first < 2 or not text[first - 2].isalnum()):
        first -= 1
    prefix = text[first:begin].strip(quote)
    before, after = text[begin + 1 : leak.begin], text[leak.end : end]
    parts = [f"{prefix}{quote}{part}{quote}" if part else "" for part in (before, after)]
    return text[:first] + plus.join(part for part in (parts[0], call, parts[1]) if part) + text[last:]


def _shell(leak: Leak, file: str, program: str) -> str:
    text = leak.text.rstrip("\r")
    for header in re.finditer(r"(?:-H|--header)(?:\s+|=)?(['\"])[^'\"]*\1", text):
        if header.start() < leak.begin < header.end():
            return _shell_header(text[: header.start()], text[header.end() :], file, program)
    start = re.fullmatch(r"(\s*)(?:(export|readonly|local|declare|typeset)\s+)?(\w+)=['\"]?", text[: leak.begin])
    if start and re.fullmatch(r"['\"]?;?\s*(?:\s#.*)?", text[leak.end :]):
        return _shell_assignment(start[1], start[2] or "", start[3], program)
    before, after = text[: leak.begin], text[leak.end :]
    if before.endswith("'") and after.startswith("'"):  # in which nothing is put in
        before, after = f'{before[:-1]}"', f'"{after[1:]}'
    return f"{before}$({program} token){after}"


def _shell_header(before: str, after: str, file: str, program: str) -> str:
    """curl reads the header from a pipe: on its command line every user would see the token."""
    indent = before[: len(before) - len(before.lstrip())]
    free = not re.search(r"[|;&]|\$\(|@-", before + after.partition("#")[0])
    if free and before.lstrip().startswith("curl "):
        return f"{indent}{program} header | {before.lstrip()}-H @-{after}"
    if SUBSTITUTES.match(file):
        return f"{before}-H @<({program} header){after}"
    return f"{before}-H @-{after}    (and begin the curl command with: {program} header |)"


def _shell_assignment(indent: str, word: str, name: str, program: str) -> str:
    """A word before the name goes into a command of its own: it would hide that d7agent failed."""
    line = f"{name}=$({program} token) || exit 1"
    if word in ("export", "readonly"):
        return f"{indent}{line}; {word} {name}"
    return f"{indent}{word} {name}; {line}" if word else f"{indent}{line}"


def _systemd(leak: Leak, text: str, program: str) -> str:
    """The manager runs no command for a variable's value: the program is started by `d7agent exec`."""
    name = leak.name or VARIABLE
    start = re.search(r"^ExecStart=([-@:+!]*)(\S.*?)(?<!\\)$", text, re.MULTILINE)
    path = program if os.path.isabs(program) else f"/usr/bin/{program}"
    if start is None or leak.text.startswith("Exec"):
        return f"ExecStart={path} exec --env {name} -- PROGRAM, which reads ${name}"
    return f"ExecStart={start[1]}{path} exec --env {name} -- {start[2]}    (and no {name} in Environment=)"
