"""The interface file and the structs say the same."""

import re
from typing import Any, get_args

import msgspec
import pytest
import varlink

from d7agent.core import errors
from d7agent.core.model import Reason
from d7agent.wire import messages
from d7agent.wire.service import STANDARD, Info, Service, interface_text
from tests.support.varlink_idl import Array, Fields, Interface, Maybe, Type, parse

OURS = parse(interface_text())
STANDARDS = parse(STANDARD)
BASIC = {msgspec.inspect.StrType: "string", msgspec.inspect.IntType: "int", msgspec.inspect.BoolType: "bool"}

# The parameters that only the helper may see; the structs of the agent must not even have a place for them.
SECRET = {
    "StoreCredential": {"client_id", "client_secret", "access_token"},
    "Lock": {"passphrase"},
    "Unlock": {"passphrase"},
}
INPUTS: dict[str, type[msgspec.Struct]] = {
    "GetToken": messages.GetToken,
    "RejectToken": messages.RejectToken,
    "GetStatus": messages.GetStatus,
    "RenewToken": messages.RenewToken,
    "StoreCredential": messages.StoreCredential,
    "ForgetCredential": messages.ForgetCredential,
    "Lock": messages.Empty,
    "Unlock": messages.Empty,
    "Reload": messages.Empty,
    "Shutdown": messages.Empty,
}
OUTPUTS: dict[str, type[msgspec.Struct]] = {
    "GetToken": messages.TokenReply,
    "RejectToken": messages.TokenReply,
    "RenewToken": messages.TokenReply,
    "GetStatus": messages.StatusReply,
    "StoreCredential": messages.StoreReply,
    "ForgetCredential": messages.ForgetReply,
    "Lock": messages.Empty,
    "Unlock": messages.Empty,
    "Reload": messages.ReloadReply,
    "Shutdown": messages.Empty,
}
ENUMS = {name: values for name, values in OURS.types.items() if isinstance(values, frozenset)}
OWN_ERRORS = {kind.name: kind for kind in errors.AgentError.__subclasses__()}


def idl_fields(struct: type[msgspec.Struct]) -> Fields:
    """The struct's fields as the interface would write them."""
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    return {field.encode_name: idl_type(field.type, optional=not field.required) for field in info.fields}


def idl_type(kind: msgspec.inspect.Type, *, optional: bool = False) -> Type:
    """A field's type as the interface would write it."""
    if isinstance(kind, msgspec.inspect.UnionType):
        [other] = [kind for kind in kind.types if not isinstance(kind, msgspec.inspect.NoneType)]
        assert optional, "a field that may be None has None as its default"
        return Maybe(idl_type(other))
    found: Type
    if isinstance(kind, msgspec.inspect.LiteralType):
        found = next(name for name, values in ENUMS.items() if values == frozenset(kind.values))
    elif isinstance(kind, msgspec.inspect.StructType):
        found = kind.cls.__name__
    elif isinstance(kind, msgspec.inspect.VarTupleType):
        found = Array(idl_type(kind.item_type))
    else:
        found = BASIC[type(kind)]
    return Maybe(found) if optional else found


@pytest.mark.parametrize("name", OURS.methods)
def test_parameters_agree(name: str) -> None:
    """Each method takes what its struct takes, and what only the helper may see."""
    described = OURS.methods[name][0]
    secret = SECRET.get(name, set())
    assert secret <= set(described)
    assert {key: kind for key, kind in described.items() if key not in secret} == idl_fields(INPUTS[name])


@pytest.mark.parametrize("name", OURS.methods)
def test_replies_agree(name: str) -> None:
    """Each method answers with the fields of its reply struct."""
    assert OURS.methods[name][1] == idl_fields(OUTPUTS[name])


@pytest.mark.parametrize("name", [name for name, kind in OURS.types.items() if not isinstance(kind, frozenset)])
def test_types_agree(name: str) -> None:
    """Each type of the interface is a struct of that name with those fields."""
    assert OURS.types[name] == idl_fields(getattr(messages, name))


def test_no_method_is_missing() -> None:
    """The interface has the methods that have structs, and the dispatcher knows them all."""
    assert set(OURS.methods) == set(INPUTS) == set(OUTPUTS)
    assert Service("0").methods == {f"io.d7agent.{name}" for name in OURS.methods}


def test_no_struct_is_forgotten() -> None:
    """Every struct of messages.py is a type, parameters or a reply of the interface."""
    structs = {value for value in vars(messages).values() if isinstance(value, type) and is_ours(value)}
    used = {*INPUTS.values(), *OUTPUTS.values(), *(getattr(messages, name) for name in OURS.types if name not in ENUMS)}
    assert structs - used == {messages.Envelope}


def is_ours(value: type) -> bool:
    """Whether it is a struct defined in messages.py."""
    return issubclass(value, msgspec.Struct) and value.__module__ == messages.__name__


def test_types_are_used() -> None:
    """No type of the interface is there for nothing."""
    text = re.sub(r"#[^\n]*", "", interface_text())
    for name in OURS.types:
        assert len(re.findall(rf"\b{name}\b", text)) > 1, name


@pytest.mark.parametrize(("interface", "prefix"), [(OURS, "io.d7agent"), (STANDARDS, "org.varlink.service")])
def test_errors_agree(interface: Interface, prefix: str) -> None:
    """The error classes are the interface's errors (of the standard's, those that we send)."""
    ours = {name.rpartition(".")[2] for name in OWN_ERRORS if name.rpartition(".")[0] == prefix}
    described = set(interface.errors)
    assert ours == described - {"MethodNotImplemented", "ExpectedMore"}


@pytest.mark.parametrize("name", OURS.errors)
def test_error_fields_agree(name: str) -> None:
    """Each own error has message, hint and the fields that its class names."""
    fields = dict(OURS.errors[name])
    assert fields.pop("message") == fields.pop("hint") == "string"
    assert set(fields) == documented(OWN_ERRORS[f"io.d7agent.{name}"])


@pytest.mark.parametrize("name", [name for name in OWN_ERRORS if name.startswith("org.")])
def test_standard_error_fields_agree(name: str) -> None:
    """Each standard error has the fields that the standard says."""
    assert set(STANDARDS.errors[name.rpartition(".")[2]]) == documented(OWN_ERRORS[name])


def documented(kind: type[errors.AgentError]) -> set[str]:
    """The fields that an error's docstring names after `Field:` or `Fields:`."""
    _, _, said = (kind.__doc__ or "").partition("Field")
    return set(re.findall(r"`([a-z_]+)`", said))


def test_nothing_in_a_reply_is_a_python_type() -> None:
    """Replies hold strings, numbers, truth, lists and structs only, all of which JSON in any language has."""
    for struct in {*OUTPUTS.values(), Info}:
        check_plain(msgspec.inspect.type_info(struct))


def check_plain(kind: Any) -> None:
    """Fails on a type that is more than JSON."""
    if isinstance(kind, msgspec.inspect.StructType):
        for field in kind.fields:
            check_plain(field.type)
    elif isinstance(kind, msgspec.inspect.UnionType):
        for item in kind.types:
            check_plain(item)
    elif isinstance(kind, msgspec.inspect.VarTupleType):
        check_plain(kind.item_type)
    else:
        plain = (*BASIC, msgspec.inspect.LiteralType, msgspec.inspect.NoneType)
        assert isinstance(kind, plain), kind


def test_a_reason_is_a_lower_case_word() -> None:
    """The reasons on the wire are words that programs can match on."""
    assert all(re.fullmatch(r"[a-z_]+", reason) for reason in get_args(Reason))


@pytest.mark.parametrize("text", [interface_text(), STANDARD], ids=["io.d7agent", "org.varlink.service"])
def test_a_published_parser_reads_it(text: str) -> None:
    """The `varlink` package, written by others, finds the same methods in both texts."""
    theirs = varlink.Interface(text)
    ours = parse(text)
    assert theirs.name == ours.name
    for name in ours.methods:
        assert theirs.get_method(name).name == name


@pytest.mark.parametrize("name", ["", "-a", "_a", "A", "a b", "a\n", "a/b", "é", "a" * 65, "a.b"])
def test_profile_names_are_checked_on_the_wire(name: str) -> None:
    """A profile name that is none is refused when the parameters are decoded."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"profile": name}), type=messages.GetToken)


@pytest.mark.parametrize("name", ["a", "0", "a-b_c9", "a" * 64])
def test_profile_names_pass(name: str) -> None:
    """A profile name passes."""
    assert msgspec.json.decode(msgspec.json.encode({"profile": name}), type=messages.GetToken).profile == name


@pytest.mark.parametrize("value", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "0" * 64 + "\n"])
def test_fingerprints_are_checked_on_the_wire(value: str) -> None:
    """A fingerprint is 64 lower-case hex digits and nothing else."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"fingerprint": value}), type=messages.RejectToken)
