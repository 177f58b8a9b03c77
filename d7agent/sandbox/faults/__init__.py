"""Faults on demand: `FAULTS` is the one table of them (name -> what it does), `Faults` those that are set."""

from d7agent.sandbox.faults import replies, token, transport
from d7agent.sandbox.faults.active import Fault, Faults
from d7agent.sandbox.faults.kind import FAULTS, FaultKind, Options, Play

# Importing these fills the table.
ROOMS = (replies, transport, token)

__all__ = ["FAULTS", "Fault", "FaultKind", "Faults", "Options", "Play", "table"]


def table() -> str:
    """The faults as text for people: name, options and what it does."""
    width = max(map(len, FAULTS))
    lines = []
    for kind in FAULTS.values():
        lines.append(f"{kind.name:{width}}  {kind.about}")
        if usage := kind.usage():
            lines.append(f"{'':{width}}    {kind.name}:{usage}")
    return "\n".join(lines)
