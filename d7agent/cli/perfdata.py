"""Performance data as the monitoring plugin guidelines want it: `'label'=value[UOM];[warn];[crit];[min];[max]`."""

from msgspec import Struct

UNKNOWN = "U"  # a value that could not be determined


class Perf(Struct, frozen=True):
    """One value. `value` None: not known. `warn` and `critical` are ranges, `unit` is `s` or "" for a count."""

    label: str
    value: float | None
    unit: str = ""
    warn: str = ""
    critical: str = ""
    least: str = "0"

    def __str__(self) -> str:
        shown = UNKNOWN if self.value is None else f"{round(self.value, 3):.12g}{self.unit}"
        return f"{quoted(self.label)}={shown};{self.warn};{self.critical};{self.least}".rstrip(";")


def quoted(label: str) -> str:
    """The label, in quotes where it has a blank; `=` and `'` must not be in one."""
    label = label.replace("=", "_").replace("'", "_")
    return f"'{label}'" if " " in label else label


def line(word: str, text: str, values: list[Perf]) -> str:
    """The plugin's one line. `|` parts text and values, so that the text must not hold one."""
    said = text.replace("|", "/")
    shown = f"|{' '.join(map(str, values))}" if values else ""
    return f"D7AGENT {word} - {said}{shown}\n"
