"""The doctor's findings, and their output for people."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: str
    """`ok`, `warning` or `error`."""
    about: str
    message: str


@dataclass
class Report:
    """Findings, and the figures that they are based on."""

    stage: str
    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, level: str, about: str, message: str) -> None:
        self.findings.append(Finding(level, about, message))

    @property
    def exit_code(self) -> int:
        levels = {finding.level for finding in self.findings}
        return 2 if "error" in levels else 1 if "warning" in levels else 0


def show(report: Report) -> None:
    """The report for a person."""
    from rich.console import Console
    from rich.text import Text

    marks = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "bold red")}
    console = Console(highlight=False)
    console.print(Text(f"Doctor · {report.stage or 'no stage'}", style="bold"))
    for finding in report.findings:
        mark, style = marks[finding.level]
        line = Text(f" {mark} ", style=style)
        line.append(f"{finding.about:<10}", style="bold")
        line.append(finding.message, style="default")
        console.print(line)
    conclusions = {
        0: "Ready to run.",
        1: "It can run; read the warnings first.",
        2: "It can't run with these errors.",
    }
    console.print(Text(conclusions[report.exit_code], style="bold"))
