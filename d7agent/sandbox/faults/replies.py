"""Faults that are an answer: what D7, or something between us and D7, may say instead of the right thing."""

import json
from dataclasses import replace
from email.utils import formatdate

from d7agent.sandbox import answers
from d7agent.sandbox.answers import Answer
from d7agent.sandbox.faults.kind import Play, fault


@fault(
    "status",
    "any status; with code= in D7's JSON shape, else body= of type=",
    status=503,
    code="",
    message="",
    body="",
    type=answers.HTML_TYPE,
)
def _status(play: Play) -> Answer:
    status, code = play.options.whole("status"), play.options.text("code")
    if code:
        return answers.d7_error(status, code, play.options.text("message") or answers.reason(status))
    return Answer(status, play.options.text("body").encode(), play.options.text("type"))


@fault("unauthorized", "401 with D7's JSON", code="ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED")
def _unauthorized(play: Play) -> Answer:
    return answers.d7_error(401, play.options.text("code"), "Access token signature verification failed")


@fault("expired", "401 ACCESS_TOKEN_EXPIRED with D7's JSON")
def _expired(play: Play) -> Answer:  # noqa: ARG001  every kind takes the same
    return answers.d7_error(401, "ACCESS_TOKEN_EXPIRED", "Access token signature has expired")


@fault("not-found", "404 APPLICATION_NOT_EXISTS with D7's JSON")
def _not_found(play: Play) -> Answer:  # noqa: ARG001
    return answers.d7_error(404, "APPLICATION_NOT_EXISTS", "Application not exists")


@fault("not-found-html", "404 with a page, from a proxy or a wrong base URL")
def _not_found_html(play: Play) -> Answer:  # noqa: ARG001
    return answers.html(404, "The page you are looking for is not here.")


@fault("forbidden", "403 with D7's JSON", code="ACCESS_DENIED")
def _forbidden(play: Play) -> Answer:
    return answers.d7_error(403, play.options.text("code"), "Access denied")


@fault("forbidden-html", "403 with a page, from a proxy")
def _forbidden_html(play: Play) -> Answer:  # noqa: ARG001
    return answers.html(403, "Access is blocked by your organisation's proxy.")


@fault("bad-request", "400 with D7's JSON", code="BAD_REQUEST")
def _bad_request(play: Play) -> Answer:
    return answers.d7_error(400, play.options.text("code"), "Bad request")


@fault("invalid", "422 with FastAPI's list: a field is missing", field="client_id", status=422)
def _invalid(play: Play) -> Answer:
    return answers.invalid(play.options.text("field"), status=play.options.whole("status"))


@fault(
    "string-detail", "an error whose detail is a plain string", status=400, detail="There was an error parsing the body"
)
def _string_detail(play: Play) -> Answer:
    return answers.plain_detail(play.options.whole("status"), play.options.text("detail"))


@fault(
    "rate-limited",
    "429 with Retry-After: after= seconds from now, or none",
    after=2.0,
    form=("seconds", "date", "none"),
)
def _rate_limited(play: Play) -> Answer:
    after, form = play.options.number("after"), play.options.text("form")
    value = formatdate(play.now + after, usegmt=True) if form == "date" else f"{after:g}"
    limited = answers.d7_error(429, "RATE_LIMIT_EXCEEDED", "Too many requests")
    return limited if form == "none" else replace(limited, headers=(("Retry-After", value),))


@fault("server-error", "500 with a page", status=500)
def _server_error(play: Play) -> Answer:
    return answers.html(play.options.whole("status"), "The server met an error.")


@fault("unavailable", "503 with a page; after= seconds in Retry-After, 0 for none", after=0.0)
def _unavailable(play: Play) -> Answer:
    after = play.options.number("after")
    return answers.html(503, "Down for maintenance.", *((("Retry-After", f"{after:g}"),) if after else ()))


@fault("redirect", "a redirect to= another URL; the default is a trap here that counts who follows", to="", status=307)
def _redirect(play: Play) -> Answer:
    to = play.options.text("to") or f"{play.url}/sandbox/elsewhere"
    return Answer(play.options.whole("status"), headers=(("Location", to),))


@fault("not-json", "200 with a page instead of JSON, as captive portals send")
def _not_json(play: Play) -> Answer:  # noqa: ARG001
    return answers.html(200, "Please sign in to the guest network.")


@fault("empty", "200 without a body")
def _empty(play: Play) -> Answer:  # noqa: ARG001
    return Answer(200)


@fault("not-utf8", "200 with bytes that are no UTF-8")
def _not_utf8(play: Play) -> Answer:  # noqa: ARG001
    return Answer(200, b'{"access_token":"\xff\xfe\xc0","token_type":"bearer"}')


@fault("json-nested", "200 with JSON nested depth= deep", depth=100_000)
def _json_nested(play: Play) -> Answer:
    depth = play.options.whole("depth")
    return Answer(200, b"[" * depth + b"]" * depth)


@fault("json-list", "200 with a JSON list instead of an object")
def _json_list(play: Play) -> Answer:  # noqa: ARG001
    return Answer(200, json.dumps(["access_token", "token_type"]).encode())
