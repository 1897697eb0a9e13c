"""What was measured of one work. None is what was not measured, or failed."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResults:
    """Medians in seconds, and the most memory in bytes, of one tool."""

    name: str
    cold: float | None
    warm: float | None
    peak: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The floor in seconds, and each tool; the first is the project, at its first rung where there are several.

    *least* are the seconds of what the project stands on, alone.
    """

    floor: float | None
    least: float | None
    tools: tuple[ToolResults, ...]

    @property
    def project(self) -> ToolResults:
        """What the others are compared with."""
        return self.tools[0]

    def at_least(self) -> Results:
        """Return what would have been measured if the project took no longer than what it stands on."""
        project = replace(self.project, cold=self.least, warm=self.least, peak=None)
        return replace(self, tools=(project, *self.tools[1:]))

    def find_tool(self, name: str) -> ToolResults | None:
        """Return the results of another tool."""
        return next((tool for tool in self.tools[1:] if tool.name == name), None)
