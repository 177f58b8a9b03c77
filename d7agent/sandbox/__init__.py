"""An embedded D7 for demos and tests: `with Sandbox(Settings(...)) as box: box.url`."""

from d7agent.sandbox.box import Sandbox, run
from d7agent.sandbox.faults import FAULTS, Fault, table
from d7agent.sandbox.settings import DEFAULT_ID, DEFAULT_SECRET, BadSetting, SandboxError, Settings
from d7agent.sandbox.stats import Stats

__all__ = [
    "DEFAULT_ID",
    "DEFAULT_SECRET",
    "FAULTS",
    "BadSetting",
    "Fault",
    "Sandbox",
    "SandboxError",
    "Settings",
    "Stats",
    "run",
    "table",
]
