"""A report for people and for machines."""

import json
import os
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from figures import Figure, Report, Row

HEADINGS = ("what", "d7agent", "beside", "theirs", "ratio (quartiles)", "bar", "")
PROGRAMS = (("ssh-agent", ["ssh", "-V"]), ("oidc-agent", ["oidc-agent", "--version"]), ("git", ["git", "--version"]))
PACKAGES = ("d7agent", "msgspec", "uvloop", "watchfiles", "keyring", "direct7")


def as_json(report: Report) -> str:
    """Everything, with the machine."""
    rows = [asdict(row) | {"met": row.met} for row in report.rows]
    return json.dumps({"version": 1, "machine": machine(), "rows": rows, "left_out": report.left_out}, indent=1)


def as_table(report: Report) -> str:
    """A table (of Markdown, which is readable as it is), with the machine below."""
    lines = [HEADINGS, *(_cells(row) for row in report.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    text += ["", *(f"left out: {what}" for what in report.left_out)]
    return "\n".join([*text, *(f"{name}: {what}" for name, what in machine().items())])


def _cells(row: Row) -> tuple[str, ...]:
    ratio = (
        "" if row.ratio is None else f"{_short(row.ratio.median)} ({_short(row.ratio.low)}-{_short(row.ratio.high)})"
    )
    bar = "" if row.bar is None else f"{'>=' if row.at_least else '<='} {_short(row.bar)}"
    met = {None: "", True: "kept", False: "MISSED"}[row.met]
    return row.what, _figure(row.ours, row.unit), row.peer, _figure(row.theirs, row.unit), ratio, bar, met


def _figure(figure: Figure | None, unit: str) -> str:
    if figure is None:
        return ""
    spread = "" if figure.low == figure.high else f" ({_short(figure.low)}-{_short(figure.high)})"
    return f"{_short(figure.median)} {unit}".rstrip() + spread


def _short(value: float) -> str:
    """Three digits."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def machine() -> dict[str, str]:
    """What this was measured on, and when."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    load = os.getloadavg()[0]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} x {model}, Linux {platform.release()}, load at the end {load:.1f}",
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {_installed(name)}" for name in PACKAGES),
        "programs": ", ".join(f"{name}: {_says(argv)}" for name, argv in PROGRAMS),
    }


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _says(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "none"
    return (done.stdout or done.stderr).strip().splitlines()[0]
