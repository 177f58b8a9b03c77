"""Asking D7 whether tokens work, for `check --live`: in helper processes, since HTTP is spoken there alone."""

import asyncio
import json
import os
from collections.abc import Mapping

from d7agent.cli.output import one_line
from d7agent.cli.verdicts import CRITICAL, OK, WARNING, Verdict
from d7agent.core.jobs import Failed, Prove, Reply
from d7agent.core.model import Secret


def prove(tokens: Mapping[str, tuple[str, str]], limit: float) -> dict[str, Verdict]:
    """What D7's balance endpoint says to each token, all asked at once. `limit` in seconds.

    `tokens`: base URL and access token by profile. The token goes to the helper by its stdin.
    """
    return asyncio.run(_prove(tokens, limit))


async def _prove(tokens: Mapping[str, tuple[str, str]], limit: float) -> dict[str, Verdict]:
    from d7agent.agent.helpers import Helpers

    helpers = Helpers(os.environ, limit=limit)
    jobs = [helpers.run(Prove(base_url, Secret(token))) for base_url, token in tokens.values()]
    try:
        async with asyncio.timeout(limit):
            replies = await asyncio.gather(*jobs)
    except TimeoutError:
        late = Verdict(CRITICAL, f"D7 did not answer within {limit:.3g} s")
        return dict.fromkeys(tokens, late)
    return {name: verdict(reply) for name, reply in zip(tokens, replies, strict=True)}


def verdict(reply: Reply) -> Verdict:
    """A helper's reply as a judgement. Whatever keeps alerts from being delivered now is critical."""
    if isinstance(reply, Failed):
        level = WARNING if reply.reason == "rate_limited" else CRITICAL
        return Verdict(level, f"D7 cannot be asked: {one_line(reply.message)}")
    if getattr(reply, "works", False):
        return Verdict(OK, f"balance {_shown(getattr(reply, 'body', None))}")
    code = getattr(reply, "code", None) or f"HTTP {getattr(reply, 'status', '?')}"
    return Verdict(CRITICAL, f"D7 refuses the token ({one_line(str(code))})")


def _shown(body: str | None) -> str:
    """The number alone where D7 sent `{"balance": number}`, else what it sent."""
    try:
        found = json.loads(body or "")
    except ValueError:
        found = None
    if isinstance(found, dict) and isinstance(found.get("balance"), int | float | str):
        return one_line(str(found["balance"]))
    return one_line(body or "unknown")
