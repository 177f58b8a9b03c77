"""The agent's memory through many refreshes: the client secret nowhere, the token in few places, and gone when told."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from d7agent.client.blocking import Agent
from tests.soak.broken import Figures, need
from tests.soak.progress import tell
from tests.support import memory
from tests.support.stage import PASSPHRASE, Stage, stage

LIFETIME: Final = 1.5  # seconds of a token: one is refreshed at half its life
LONG: Final = 3600.0  # of the one that is looked for in an agent at rest
AFTER: Final = 1.0  # seconds from a login within which its helper's request may still be somewhere
COPIES: Final = 3  # of a token at rest: the string, and twice (token, header) in the reply kept ready
TOLD_EVERY: Final = 20


def run(seed: int, count: int) -> Figures:
    """So many refreshes after one login over the socket, a scan after each."""
    memory.need_root()
    with stage(lifetime=LIFETIME) as staged:
        staged.login()
        time.sleep(AFTER)  # real time: that is the promise
        former = list[str]()
        for number, token in enumerate(_tokens(staged, count), 1):
            _no_secret(staged, f"after refresh {number}")
            former.append(token)
            if number % TOLD_EVERY == 0:
                tell(f"refreshes: {number} of {count}")
        figures = _at_rest(staged, former)
        _locked(staged)
        _logged_out(staged)
        return {"refreshes": count, "scans": count + 5, "hits of the client secret": 0} | figures


def _tokens(staged: Stage, count: int) -> Iterator[str]:
    """The token of each refresh, as it comes."""
    with Agent(str(staged.live.socket)) as agent, closing(agent.call("GetToken", more=True)) as replies:
        next(replies)
        for _ in range(count):
            yield str(next(replies)["token"]["access_token"])


def _no_secret(staged: Stage, when: str) -> None:
    found = staged.found(staged.secret)
    need(not any(found.values()), f"the client secret is in the agent's memory {when}: {[*found.values()]} hits")


def _at_rest(staged: Stage, former: list[str]) -> Figures:
    """How often the token is found once it stays, and how much there still is of those before it."""
    staged.box.configure(lifetime=LONG)
    with Agent(str(staged.live.socket)) as agent, closing(agent.call("GetToken", more=True)) as replies:
        token = next(reply["token"] for reply in replies if reply["token"]["valid_for"] > LIFETIME)["access_token"]
    _no_secret(staged, "at rest")
    copies = len(memory.hits(staged.live.pid, token))
    left = sum(memory.count(staged.live.pid, set(former) - {token}).values())
    need(copies <= COPIES, f"{copies} copies of the token in an agent at rest")
    need(not left, f"{left} copies of {len(former)} former tokens")
    return {"copies of the token at rest": copies, "copies of former tokens": left}


def _locked(staged: Stage) -> None:
    token = staged.token
    staged.live.run("lock", "--stdin", text=f"{PASSPHRASE}\n", check=True)
    _gone(staged, token, "lock")
    staged.live.run("unlock", "--stdin", text=f"{PASSPHRASE}\n", check=True)


def _logged_out(staged: Stage) -> None:
    token = staged.token
    staged.live.run("logout", "default", "--yes", check=True)
    _gone(staged, token, "logout")


def _gone(staged: Stage, token: str, after: str) -> None:
    """Neither the token nor the half with its signature, nor the client secret."""
    found = memory.count(staged.live.pid, (token, token[len(token) // 2 :]))
    need(not any(found.values()), f"after {after} the token is in the agent's memory: {[*found.values()]} hits")
    _no_secret(staged, f"after {after}")
