"""What the server and the agent say to each other: a call in hand, and who handles it."""

import logging
from collections.abc import Callable
from typing import Final, Protocol

from d7agent.agent.peers import Peer
from d7agent.core.errors import AgentError
from d7agent.wire.framing import encode_error, encode_reply

NOTHING: Final = memoryview(b"{}")

log = logging.getLogger("d7agent.agent.call")


class Line(Protocol):
    """The connection that a call came in on."""

    def answer(self, call: "Call", frame: bytes, *, last: bool) -> None:
        """Send one frame of an open call; `last` closes the call."""


class Call:
    """One call in hand: it lives until it is answered for good, or its peer is gone.

    `parameters` is the raw JSON (`{}` when missing or null). It lies in a receive buffer that is wiped afterwards, and
    is valid only during Handler.call(): decode there what may be decoded, and write the rest to where it belongs.
    `on_gone` is called once if the call ends without being answered: the peer left, may no longer ask, or the server
    closed. Answering a call that is no longer open does nothing, so a late answer needs no check.
    """

    __slots__ = ("_line", "method", "more", "on_gone", "oneway", "parameters", "peer")

    def __init__(
        self, line: Line, peer: Peer, method: str, parameters: memoryview, *, more: bool = False, oneway: bool = False
    ) -> None:
        self._line: Line | None = line
        self.peer = peer
        self.method = method
        self.parameters = parameters
        self.more = more and not oneway
        self.oneway = oneway
        self.on_gone: Callable[[], None] | None = None

    @property
    def open(self) -> bool:
        """Whether an answer would still reach the peer (or, for a oneway call, whether it still counts as in hand)."""
        return self._line is not None

    def reply(self, parameters: bytes, *, continues: bool = False) -> None:
        """Answer with an encoded JSON object. With `continues`, allowed when `more` was asked, the call stays open."""
        self.reply_frame(encode_reply(parameters, continues=continues), continues=continues)

    def reply_frame(self, frame: bytes, *, continues: bool = False) -> None:
        """Answer with a ready-made frame, its NUL included; `continues` must be what the frame says."""
        if continues and not self.more:
            raise ValueError(f"{self.method}: a call without `more` has one reply")
        self._send(frame, last=not continues)

    def error(self, error: AgentError) -> None:
        """Answer with an error, which ends the call."""
        self._send(encode_error(error), last=True)

    def gone(self) -> None:
        """The connection's part: the call ends unanswered."""
        self._line = None
        on_gone, self.on_gone = self.on_gone, None
        if on_gone is None:
            return
        try:
            on_gone()
        except Exception:
            log.exception("%s: tidying up failed", self.method)

    def _send(self, frame: bytes, *, last: bool) -> None:
        line = self._line
        if line is None:
            return
        if last:
            self._line = self.on_gone = None
        line.answer(self, frame, last=last)


class Handler(Protocol):
    """What answers the calls of io.d7agent. Everything is called in the loop's thread and must not block."""

    def quick(self, peer: Peer, request: bytes) -> bytes | None:
        """The whole frame that answers exactly this GetToken request (a message without its NUL), or None."""

    def call(self, call: Call) -> None:
        """Answer the call now or later. An AgentError raised here is the answer."""

    def admit(self, peer: Peer) -> AgentError | None:
        """The refusal of a peer that may not ask; asked at connect, and again after Server.policy_changed()."""
