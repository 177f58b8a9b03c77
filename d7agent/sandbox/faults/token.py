"""Faults of the token in a reply that is otherwise right. They leave failed logins alone."""

import json
from typing import Final

from d7agent.sandbox.answers import Answer, json_answer, token_answer
from d7agent.sandbox.faults.kind import Play, fault

YEAR_9999: Final = 253_402_300_799  # the last second of it, unix time


@fault("token-missing", "no access_token in the reply", token=True)
def _missing(play: Play) -> Answer:  # noqa: ARG001  every kind takes the same
    return json_answer(200, {"token_type": "bearer"})  # the type's name, no secret  # nosec B105


@fault("token-empty", "access_token is an empty string", token=True)
def _empty(play: Play) -> Answer:  # noqa: ARG001
    return token_answer("")


@fault("token-null", "access_token is null", token=True)
def _null(play: Play) -> Answer:  # noqa: ARG001
    return token_answer(None)


@fault("token-number", "access_token is a number", token=True)
def _number(play: Play) -> Answer:  # noqa: ARG001
    return token_answer(12345)


@fault(
    "token-type",
    "token_type is value= instead of bearer, or of another type, or missing",
    token=True,
    value="mac",
    form=("string", "null", "number", "list", "missing"),
)
def _type(play: Play) -> Answer:
    value, form = play.options.text("value"), play.options.text("form")
    forms: dict[str, object] = {"string": value, "null": None, "number": 1, "list": [value]}
    named = {} if form == "missing" else {"token_type": forms[form]}
    return json_answer(200, {"access_token": _healthy(play), **named})


@fault("duplicate-keys", "access_token twice, the good one first", token=True)
def _duplicate_keys(play: Play) -> Answer:
    good, other = json.dumps(_healthy(play)), json.dumps("not.the.token")
    return Answer(200, f'{{"access_token":{good},"token_type":"bearer","access_token":{other}}}'.encode())


@fault("token-control", "the token ends in text= with control characters", token=True, text="\r\nX-Injected: 1")
def _control(play: Play) -> Answer:
    return token_answer(_healthy(play) + play.options.text("text"))


@fault("token-too-large", "a signed token of size= bytes or a little more", token=True, size=1 << 20)
def _too_large(play: Play) -> Answer:
    return token_answer(play.mint(pad="A" * (play.options.whole("size") * 3 // 4)))


@fault("exp-past", "the token expired ago= seconds ago", token=True, ago=60.0)
def _exp_past(play: Play) -> Answer:
    exp = int(play.now - play.options.number("ago"))
    return token_answer(play.mint(iat=exp - 3600, exp=exp))


@fault("exp-string", "exp is a string", token=True)
def _exp_string(play: Play) -> Answer:
    return token_answer(play.mint(exp=str(int(play.now) + 3600)))


@fault("exp-float", "exp is a number with a fraction, life= seconds away", token=True, life=3600.5)
def _exp_float(play: Play) -> Answer:
    return token_answer(play.mint(exp=int(play.now) + play.options.number("life")))


@fault("exp-negative", "exp lies before 1970", token=True)
def _exp_negative(play: Play) -> Answer:
    return token_answer(play.mint(exp=-1))


@fault("exp-year-9999", "exp is the last second of the year 9999", token=True)
def _exp_year_9999(play: Play) -> Answer:
    return token_answer(play.mint(exp=YEAR_9999))


@fault("exp-huge", "exp is a number of 400 digits", token=True)
def _exp_huge(play: Play) -> Answer:
    return token_answer(play.mint(exp=10**400))


@fault("iat-future", "iat lies ahead= seconds in the future, exp after it", token=True, ahead=3600.0)
def _iat_future(play: Play) -> Answer:
    iat = int(play.now + play.options.number("ahead"))
    return token_answer(play.mint(iat=iat, exp=iat + 3600))


def _healthy(play: Play) -> str:
    body = play.answer.body
    return str(json.loads(body)["access_token"]) if isinstance(body, bytes) else ""
