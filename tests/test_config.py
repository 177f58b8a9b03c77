"""From the texts of configuration files to checked structs, or to every problem with its file, line and key."""

import pytest

from d7agent.core.config import Access, Config, Hooks, Profile, Sink, parse
from d7agent.core.errors import ConfigError
from d7agent.core.tables import MAX_PROBLEMS
from d7agent.core.toml_lines import quote

FOLDERS = {"%t": "/run/user/7", "~": "/home/ann"}


def expand(text: str) -> str:
    """The runtime folder and the home, as the real one does."""
    for specifier, folder in FOLDERS.items():
        text = text.replace(specifier, folder)
    return text


def profile(text: str, name: str = "default") -> Profile:
    """The one profile that this file makes."""
    return parse(None, [(f"/p/{name}.toml", text)], expand).profiles[name]


def config(text: str, *profiles: str) -> Config:
    """What the agent's own file makes, beside empty profiles of these names."""
    return parse(("/c/config.toml", text), [(f"/p/{name}.toml", "") for name in profiles], expand)


def problems(*profiles: tuple[str, str], text: str | None = None) -> list[str]:
    """The lines of the error that these files lead to."""
    with pytest.raises(ConfigError) as caught:
        parse(None if text is None else ("/c/config.toml", text), list(profiles), expand)
    return str(caught.value).split("\n")


def test_without_any_file_there_is_one_profile_in_the_keyring() -> None:
    """`default`, with the defaults of the design."""
    made = parse(None, [], expand)
    assert made == Config(profiles={"default": Profile()})
    assert (made.profiles["default"].store, made.profiles["default"].max_age) == ("keyring", 43_200.0)


def test_without_a_profile_file_the_one_profile_has_the_name_that_the_config_gives() -> None:
    """So the default is never a profile that does not exist."""
    assert config('default_profile = "work"') == Config(profiles={"work": Profile(name="work")}, default_profile="work")


def test_every_key_of_a_profile_is_read() -> None:
    """Types, units and specifiers as the design's example has them."""
    text = """
base_url = "HTTPS://API.example.com:443/x/"
store = "keyring:keyring.backends.SecretService.Keyring"
client_id = " id "
max_age = "1d"
logins_per_hour = 60
remember_token = false
[[sinks]]
path = "%t/d7agent/default.env"
mode = "0640"
group = "d7"
[[sinks]]
path = "~//token/./x"
format = "token"
"""
    assert profile(text) == Profile(
        base_url="https://api.example.com:443/x",
        store="keyring:keyring.backends.SecretService.Keyring",
        client_id="id",
        max_age=86_400.0,
        logins_per_hour=60,
        remember_token=False,
        sinks=(
            Sink(path="/run/user/7/d7agent/default.env", mode=0o640, group="d7"),
            Sink(path="/home/ann/token/x", format="token"),
        ),
        path="/p/default.toml",
    )


def test_every_key_of_the_agents_file_is_read() -> None:
    """Users and the like lose their doubles."""
    text = """
default_profile = "b"
[access]
users = ["nagios", "zabbix", "nagios"]
groups = ["d7"]
units = ["zabbix-server.service", "x@1.service"]
[hooks]
on_rejected = ["/bin/page", "me"]
on_refreshed = ["/bin/a"]
on_recovered = ["/bin/b"]
"""
    assert config(text, "a", "b") == Config(
        profiles={name: Profile(name=name, path=f"/p/{name}.toml") for name in "ab"},
        default_profile="b",
        access=Access(users=("nagios", "zabbix"), groups=("d7",), units=("zabbix-server.service", "x@1.service")),
        hooks=Hooks(on_rejected=("/bin/page", "me"), on_refreshed=("/bin/a",), on_recovered=("/bin/b",)),
    )


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("keyring", "keyring"),
        (" keyring ", "keyring"),
        ("directory:/run/secrets/", "directory:/run/secrets"),
        ("directory:~/d7", "directory:/home/ann/d7"),
        ("command:pass show 'd7 app'", "command:pass show 'd7 app'"),
        ("environment", "environment"),
        ("environment:PROD_", "environment:PROD_"),
    ],
)
def test_stores(value: str, kept: str) -> None:
    """Each kind, with and without what follows it."""
    assert profile(f"store = {quote(value)}").store == kept


@pytest.mark.parametrize(
    "url", ["http://localhost:8000", "http://127.0.0.1", "http://127.9.9.9:1", "http://[::1]:80", "https://d7.internal"]
)
def test_base_urls_that_are_allowed(url: str) -> None:
    """https anywhere, plain http to this host alone."""
    assert profile(f'base_url = "{url}"').base_url == url


@pytest.mark.parametrize(
    ("value", "seconds"), [('"60s"', 60), ("60", 60), ('"30d"', 2_592_000), ('"1h30m"', 5_400), ('"90"', 90)]
)
def test_max_age_in_its_spellings(value: str, seconds: int) -> None:
    """Both ends of the range belong to it."""
    assert profile(f"max_age = {value}").max_age == seconds


DURATION = 'must be a span of time such as "12h", "30m", "90s", "1d" or a number of seconds'
HTTPS = "must begin with https:// (http:// is for loopback hosts only)"
URL = 'must be a URL such as "https://api.d7networks.com"'
STORE = "must be keyring[:BACKEND], directory:PATH, command:ARGV or environment[:PREFIX]"
PATH = "must be an absolute path without .. (%t, %h and ~ stand for the runtime and home folders)"
SECRET = "secrets do not belong into this file: delete the line, then store it with `d7agent login`"
PROFILE_KEYS = "base_url, store, client_id, max_age, logins_per_hour, remember_token, sinks"

BAD_PROFILES = [
    ('store = "keyring"\nmax_age 5', "2: not valid TOML: Expected '=' after a key in a key/value pair (column 9)"),
    ('a = "', "1: not valid TOML: "),
    ("a = 1\na = 2", "2: not valid TOML: Cannot overwrite a value"),
    ("max_age = " + "9" * 5000, "1: not valid TOML: Exceeds the limit"),
    ("a = " + "[" * 20000, ": not valid TOML: nested too deeply"),
    ('\nmaxage = "1h"', "2: maxage: unknown key; did you mean max_age?"),
    ("colour = 1", f"1: colour: unknown key; known here: {PROFILE_KEYS}"),
    ('client_secret = "hush"', f"1: client_secret: {SECRET}"),
    ('access_token = "hush"', f"1: access_token: {SECRET}"),
    ("store = 5", "1: store: must be a string, not a whole number"),
    ("store = {}", "1: store: must be a string, not a table"),
    ("base_url = 2020-01-01", "1: base_url: must be a string, not a date"),
    ("max_age = true", "1: max_age: must be a whole number or a string, not true or false"),
    ("max_age = 1.5", "1: max_age: must be a whole number or a string, not a number"),
    ('remember_token = "yes"', "1: remember_token: must be true or false, not a string"),
    ('logins_per_hour = "5"', "1: logins_per_hour: must be a whole number, not a string"),
    ('max_age = "soon"', f"1: max_age: {DURATION}"),
    ("max_age = -60", f"1: max_age: {DURATION}"),
    ('max_age = "59s"', "1: max_age: must be from 1m to 30d"),
    ('max_age = "31d"', "1: max_age: must be from 1m to 30d"),
    ("logins_per_hour = 0", "1: logins_per_hour: must be from 1 to 3600"),
    ("logins_per_hour = 3601", "1: logins_per_hour: must be from 1 to 3600"),
    ("client_id = ''", "1: client_id: must be one line and not empty"),
    ('client_id = "a\\nb"', "1: client_id: must be one line and not empty"),
    ('base_url = "http://api.d7networks.com"', f"1: base_url: {HTTPS}"),
    ('base_url = "http://127.0.0.1.evil.com"', f"1: base_url: {HTTPS}"),
    ('base_url = "http://localhost.evil.com"', f"1: base_url: {HTTPS}"),
    ('base_url = "ftp://localhost"', f"1: base_url: {HTTPS}"),
    ('base_url = "https://u:hush@d7.com"', "1: base_url: must not hold a user name or password"),
    ('base_url = "https://d7.com/?a=1"', "1: base_url: must not have a query or fragment (? or #)"),
    ('base_url = "https://d7.com#a"', "1: base_url: must not have a query or fragment (? or #)"),
    ('base_url = "d7.com"', f"1: base_url: {URL}"),
    ('base_url = "https://"', f"1: base_url: {URL}"),
    ('base_url = "https://d7.com:0"', f"1: base_url: {URL}"),
    ('base_url = "https://d7.com:65536"', f"1: base_url: {URL}"),
    ('base_url = "https://d7 .com"', f"1: base_url: {URL}"),
    ('base_url = "https://d7.com\\r\\nx"', f"1: base_url: {URL}"),
    ('store = "vault"', f"1: store: {STORE}"),
    ('store = "Keyring"', f"1: store: {STORE}"),
    (
        'store = "keyring:"',
        "1: store: must name a backend such as keyring.backends.SecretService.Keyring after keyring:",
    ),
    ('store = "directory"', f"1: store: {PATH}"),
    ('store = "directory:secrets"', f"1: store: {PATH}"),
    ('store = "directory:/a/../b"', f"1: store: {PATH}"),
    ('store = "directory:/"', "1: store: must not be the root folder"),
    ('store = "command"', "1: store: must name a program after command:"),
    ('store = "command:pass \'d7"', "1: store: must hold shell words after command: (No closing quotation)"),
    ('store = "environment:A-B"', "1: store: must name a prefix such as PROD_ after environment:"),
    ("sinks = 1", "1: sinks: must be a list, not a whole number"),
    ('[sinks]\npath = "/a"', "1: sinks: must be a list, not a table"),
    ("sinks = [1]", "1: sinks: must be a table, not a whole number (item 1)"),
    ('[[sinks]]\nmode = "0600"', "1: sinks: has no path"),
    ('[[sinks]]\npath = "a.env"', f"2: sinks.path: {PATH}"),
    ('[[sinks]]\npath = "/a/"', "2: sinks.path: must name a file, not a folder"),
    ('[[sinks]]\npath = "/a\\u0000"', "2: sinks.path: must not hold control characters"),
    ('[[sinks]]\npath = "/a"\nform = "env"', "3: sinks.form: unknown key; did you mean format?"),
    (
        '[[sinks]]\npath = "/a"\nformat = "xml"',
        "3: sinks.format: must be one of token, header, curl, env, json, not 'xml'",
    ),
    ('[[sinks]]\npath = "/a"\nmode = 600', "3: sinks.mode: must be a string, not a whole number"),
    ('[[sinks]]\npath = "/a"\nmode = "0666"', "3: sinks.mode: must not let others write"),
    ('[[sinks]]\npath = "/a"\nmode = "1600"', '3: sinks.mode: must be three octal digits, such as "0600"'),
    ('[[sinks]]\npath = "/a"\nmode = "0698"', '3: sinks.mode: must be three octal digits, such as "0600"'),
    ('[[sinks]]\npath = "/a"\ngroup = ""', "3: sinks.group: must be one line and not empty"),
    (
        '[[sinks]]\npath = "/a"\n\n[[sinks]]\npath = "/./a"',
        "5: sinks.path: /a is written by a sink in /p/x.toml already",
    ),
    ('sinks = [{path = "/a"}, {path = "/a"}]', "1: sinks.path: /a is written by a sink in /p/x.toml already"),
]


@pytest.mark.parametrize(("text", "problem"), BAD_PROFILES)
def test_what_is_wrong_with_a_profile_is_said_with_file_line_and_key(text: str, problem: str) -> None:
    """Exactly one line, for exactly that key; where the expected text stops short, Python's own words follow."""
    (line,) = problems(("/p/x.toml", text))
    assert line.startswith(f"/p/x.toml{'' if problem.startswith(':') else ':'}{problem}")
    assert "hush" not in line


BAD_CONFIGS = [
    ("defaultprofile = 'a'", "1: defaultprofile: unknown key; did you mean default_profile?"),
    ("[hooks]\non_reject = ['/x']", "2: hooks.on_reject: unknown key; did you mean on_rejected?"),
    ("hooks.on_reject = ['/x']", "1: hooks.on_reject: unknown key; did you mean on_rejected?"),
    (
        "default_profile = 'A'",
        "1: default_profile: must be a profile name: a-z, 0-9, _ and -, at most 64, the first a letter or digit",
    ),
    ("\n# c\ndefault_profile = 'z'", "3: default_profile: there is no profile 'z'; there are: a, b"),
    ("access = 5", "1: access: must be a table, not a whole number"),
    ("[[access]]\nusers = []", "1: access: must be a table, not a list"),
    ("[access]\nusers = 'nagios'", "2: access.users: must be a list, not a string"),
    ("[access]\nusers = ['a', 5]", "2: access.users: must be a string, not a whole number (item 2)"),
    ("[access]\nusers = ['a b']", "2: access.users: must be names of users or groups, not 'a b'"),
    ("[access]\ngroups = ['']", "2: access.groups: must be names of users or groups, not ''"),
    (
        "[access]\nunits = ['zabbix']",
        "2: access.units: must be names of services, such as zabbix-server.service, not 'zabbix'",
    ),
    (
        "[access]\nunits = ['a/b.service']",
        "2: access.units: must be names of services, such as zabbix-server.service, not 'a/b",
    ),
    ("[hooks]\non_rejected = []", "2: hooks.on_rejected: must begin with the absolute path of a program: "),
    ("[hooks]\non_rejected = ['page-me']", "2: hooks.on_rejected: must begin with the absolute path of a program: "),
    ("[hooks]\non_rejected = ['/a', \"b\\u0000\"]", "2: hooks.on_rejected: must not hold NUL"),
]


@pytest.mark.parametrize(("text", "problem"), BAD_CONFIGS)
def test_what_is_wrong_with_the_agents_file_is_said_the_same_way(text: str, problem: str) -> None:
    """Nested keys are named with their table."""
    (line,) = problems(("/p/a.toml", ""), ("/p/b.toml", ""), text=text)
    assert line.startswith(f"/c/config.toml:{problem}")


@pytest.mark.parametrize("name", ["Work", "a b", "_a", "x" * 65, ""])
def test_a_files_name_must_be_a_profiles_name(name: str) -> None:
    """The file is named; there is no line."""
    (line,) = problems((f"/p/{name}.toml", ""))
    assert line.startswith(f"/p/{name}.toml: the file's name (without .toml) must be a profile name")


def test_every_problem_of_every_file_is_listed_at_once() -> None:
    """In the order of files and lines: one look, one edit, done."""
    bad = 'max_age = "1s"\nstore = 5\n[[sinks]]\nmode = "9"\n[[sinks]]\npath = "x"\n'
    assert [
        line.partition(" ")[0] for line in problems(("/p/a.toml", bad), ("/p/b.toml", "x"), text="[hooks]\na=1")
    ] == [
        "/c/config.toml:2:",
        "/p/a.toml:1:",
        "/p/a.toml:2:",
        "/p/a.toml:3:",
        "/p/a.toml:4:",
        "/p/a.toml:6:",
        "/p/b.toml:1:",
    ]


def test_a_file_that_is_wrong_all_over_is_cut_short() -> None:
    """A file that is not ours at all must not fill the status, nor take long."""
    lines = problems(("/p/a.toml", "\n".join(f"k{n} = {n}" for n in range(3000))))
    assert len(lines) == MAX_PROBLEMS + 1
    assert lines[-1] == f"/p/a.toml: and {3000 - MAX_PROBLEMS} more"


def test_two_sinks_of_different_profiles_on_one_path_are_refused() -> None:
    """The one that comes second is to blame, and says who was first."""
    sink = '[[sinks]]\npath = "%t/x"'
    assert problems(("/p/a.toml", sink), ("/p/b.toml", "\n" + sink)) == [
        "/p/b.toml:3: sinks.path: /run/user/7/x is written by a sink in /p/a.toml already"
    ]


def test_of_two_files_for_one_profile_the_first_counts() -> None:
    """The admin's stands above what login wrote, which is not even looked at."""
    made = parse(None, [("/etc/x.toml", "max_age = 60"), ("/var/x.toml", "rubbish")], expand)
    assert made.profiles == {"x": Profile(name="x", max_age=60.0, path="/etc/x.toml")}
