"""A parser of the Varlink interface definition language, as much of it as io.d7agent and org.varlink.service use."""

import re
from dataclasses import dataclass, field

TOKENS = re.compile(r"#[^\n]*|\s+|(\[\]|\[string\]|->|[?(),:]|[A-Za-z_][A-Za-z0-9_.-]*)")


@dataclass
class Maybe:
    """A value or null: ?T."""

    item: "Type"


@dataclass
class Array:
    """A list: []T."""

    item: "Type"


Fields = dict[str, "Type"]
Type = str | Maybe | Array | Fields | frozenset[str]


@dataclass
class Interface:
    """One parsed file: types are fields or the values of an enumeration."""

    name: str
    types: dict[str, Fields | frozenset[str]] = field(default_factory=dict)
    methods: dict[str, tuple[Fields, Fields]] = field(default_factory=dict)
    errors: dict[str, Fields] = field(default_factory=dict)


class Parser:
    """Recursive descent; anything that does not fit is an AssertionError."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        position = 0
        while position < len(text):
            match = TOKENS.match(text, position)
            assert match, f"strange text at {text[position : position + 20]!r}"
            position = match.end()
            if match[1]:
                self.tokens.append(match[1])

    def take(self, expected: str | None = None) -> str:
        token = self.tokens.pop(0)
        assert expected in (None, token), f"{token!r} in place of {expected!r}"
        return token

    def interface(self) -> Interface:
        self.take("interface")
        found = Interface(self.take())
        while self.tokens:
            kind, name = self.take(), self.take()
            assert name not in found.types | found.methods | found.errors, f"{name} twice"
            if kind == "type":
                found.types[name] = self.fields_or_values()
            elif kind == "method":
                inputs = self.fields()
                self.take("->")
                found.methods[name] = inputs, self.fields()
            else:
                assert kind == "error"
                found.errors[name] = self.fields()
        return found

    def fields_or_values(self) -> Fields | frozenset[str]:
        if self.tokens[2] == ":" or self.tokens[1] == ")":
            return self.fields()
        self.take("(")
        values = [self.take()]
        while self.take() == ",":
            values.append(self.take())
        return frozenset(values)

    def fields(self) -> Fields:
        found: Fields = {}
        self.take("(")
        while self.tokens[0] != ")":
            name = self.take()
            self.take(":")
            assert name not in found
            found[name] = self.type()
            if self.tokens[0] != ")":
                self.take(",")
        self.take(")")
        return found

    def type(self) -> Type:
        if self.tokens[0] == "?":
            self.take()
            return Maybe(self.type())
        if self.tokens[0] == "[]":
            self.take()
            return Array(self.type())
        return self.take()


def parse(text: str) -> Interface:
    """The interface that the text defines."""
    return Parser(text).interface()
