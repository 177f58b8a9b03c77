"""TOML by lines: where a key stands, and edits that leave the rest alone."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d7agent.core.toml_lines import locate, quote, set_keys, statements

TEXT = '''# head
a = 1
b = """
[not.a.table]
c = 2
"""
d = [
  "]", # ]
  { x = 1 },
]
[t]
a.b = 1
"quoted key" = 2
[[s]]
k = 1
[[s]]
k = 2
[[s.deep]]
z = 1
[s.sub]
y = 1
'''


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("a",), 2),
        (("b",), 3),
        (("d",), 7),
        (("d", 1, "x"), 7),
        (("t",), 11),
        (("t", "a", "b"), 12),
        (("t", "quoted key"), 13),
        (("t", "missing"), 11),
        (("s", 0, "k"), 15),
        (("s", 1), 16),
        (("s", 1, "k"), 17),
        (("s", 1, "deep", 0, "z"), 19),
        (("s", 1, "sub", "y"), 21),
        (("s",), 14),
        (("c",), None),
    ],
)
def test_a_keys_line_is_found(key: tuple[str | int, ...], line: int | None) -> None:
    """Also behind multi-line values that look like keys and tables; what is missing is looked for around it."""
    assert locate(TEXT, key) == line


def test_a_line_that_cannot_be_found_is_no_error() -> None:
    """A value of a thousand lines costs the line number, not the message."""
    assert locate("a = [\n" + "1,\n" * 1000 + "]\nb = 2", ("b",)) is None


KEYS = st.sampled_from(["base_url", "store", "client_id"])
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
COMMENTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12).map(lambda text: f"# {text}")
VALUES = st.one_of(
    TEXTS.map(quote),
    st.sampled_from(
        ["1", "true", "[\n  'a', # ]\n  'b',\n]", "'''\nstore = 1\n[x]\n'''", "{ a = 'b#' }", "'#'", '"""\n"""']
    ),
)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A valid TOML text and the comments in it."""
    comments: list[str] = []

    def comment() -> str:
        comments.append(draw(COMMENTS))
        return comments[-1]

    lines = [comment()] if draw(st.booleans()) else []
    names = draw(st.lists(st.one_of(KEYS, st.sampled_from(["max_age", "x", "y"])), unique=True, max_size=5))
    for name in names:
        value = draw(TEXTS.map(quote) if name in ("base_url", "store", "client_id") else VALUES)
        sign = draw(st.sampled_from(["=", " = ", "  =\t"]))
        tail = draw(st.sampled_from(["", " ", "  # "]))
        if tail.endswith("# "):
            tail = f"  {comment()}"
        lines.append(f"{draw(st.sampled_from(['', '  ']))}{name}{sign}{value}{tail}")
        lines.extend(["", comment()] if draw(st.booleans()) else [])
    if draw(st.booleans()):
        lines += [comment(), "[[sinks]]", f"store = {draw(VALUES)} {comment()}", "[sinks.x]"]
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    end = draw(st.sampled_from(["", newline]))
    return newline.join("\n".join(lines).split("\n")) + end, comments


@given(files(), st.dictionaries(KEYS, TEXTS, min_size=1))
def test_an_edit_changes_the_keys_it_is_given_and_nothing_else(
    file: tuple[str, list[str]], changes: dict[str, str]
) -> None:
    """Values, comments and the order of all the other lines stay; a second edit to the same end changes nothing."""
    text, comments = file
    before: dict[str, Any] = tomllib.loads(text)
    after = set_keys(text, changes)
    assert tomllib.loads(after) == {**before, **changes}
    assert all(after.count(comment) >= text.count(comment) for comment in comments)
    assert [key for key in tomllib.loads(after) if key in before] == list(before)
    kept = [line for line in text.split("\n") if not any(name in line for name in changes)]
    left = iter(line.rstrip("\r") for line in after.split("\n"))
    assert all(line.rstrip("\r") in left for line in kept)
    assert set_keys(after, changes) == after
    assert list(statements(after)) == list(statements(set_keys(after, {})))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", 'store = "v"\n'),
        ("# head\n", '# head\nstore = "v"\n'),
        ("# head", '# head\nstore = "v"\n'),
        ("a = 1", 'a = 1\nstore = "v"\n'),
        ("# head\n# about s\n[[s]]\n", '# head\nstore = "v"\n# about s\n[[s]]\n'),
        ("[[s]]\n", 'store = "v"\n[[s]]\n'),
        ("a = 1\n\n[t]\nstore = 'x'\n", "a = 1\nstore = \"v\"\n\n[t]\nstore = 'x'\n"),
        ("store = 'x#y' # why\n", 'store = "v" # why\n'),
        ("store='v'# same", "store='v'# same"),
        ('store = """\nold\n""" # why\nb = 1\n', 'store = "v" # why\nb = 1\n'),
        ("  store\t=\t'x'   \r\nb = 1\r\n", '  store\t=\t"v"   \r\nb = 1\r\n'),
        ("a = 1\r\n[t]\r\n", 'a = 1\r\nstore = "v"\r\n[t]\r\n'),
    ],
)
def test_where_an_edit_lands(before: str, after: str) -> None:
    """Beside its like, above the tables, with the file's own line ends."""
    assert set_keys(before, {"store": "v"}) == after


@pytest.mark.parametrize("text", ["store.x = 1\nstore.y = 2", "[store]\nx = 1", "broken"])
def test_an_edit_that_would_not_come_out_as_meant_is_refused(text: str) -> None:
    """Better no edit than another one."""
    with pytest.raises(ValueError, match=r"."):
        set_keys(text, {"store": "v"})


@given(TEXTS)
def test_any_text_can_be_quoted(text: str) -> None:
    """Quotes, backslashes, control characters, DEL, every plane of Unicode."""
    assert tomllib.loads(f"a = {quote(text)}") == {"a": text}
