"""`pybuild doctor`: what this machine allows, which isolation a build gets, and what would help.

    doctor          one line a subject, then what stands in the way of better, then text to paste
    doctor --json   {"isolation": NAME, "snapshots": NAME, "findings": [{name, state, text, fix}],
                     "rungs": [{name, obstacle, fix}]}

Exit status 0 if steps can run, 4 if not.
"""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

from builder.cli.lines import escape_controls
from builder.store import Store
from runtime.examine import Finding, ThisMachine, examine, examine_store
from runtime.isolation import RUNGS, Trial, choose, try_rung

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from builder.cli.environment import Environment

_MARKS = {"ok": "ok", "note": "..", "missing": "--"}
_WIDTH = 78
_EXIT_UNSUPPORTED = 4

_MEANING = {
    "subids": "user namespaces with a range of ids",
    "single-id": "user namespaces with one id",
    "chroot": "steps by chroot, without namespaces",
    "none": "no steps; COPY, ADD and metadata only",
}


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Look, try, and print."""
    with Store(environment.root(arguments.root)) as store:
        store.before_fork()
        trials = tuple(try_rung(rung, store.temporary) for rung in RUNGS)
        machine = ThisMachine()
        findings = (
            *examine(machine, environment.variables, environment.uid, trials),
            examine_store(store.root),
        )
    best = choose(trials)
    if arguments.json:
        sys.stdout.write(json.dumps(_document(best, findings, trials), indent=2) + "\n")
    else:
        sys.stdout.write(escape_controls("".join(_page(best, findings, trials))))
    return _EXIT_UNSUPPORTED if best.rung == "none" else 0


def _document(best: Trial, findings: Iterable[Finding], trials: Iterable[Trial]) -> dict[str, object]:
    return {
        "isolation": best.rung,
        "snapshots": best.snapshotter,
        "findings": [asdict(finding) for finding in findings],
        "rungs": [
            {
                "name": trial.rung,
                "obstacle": trial.obstacle.reason if trial.obstacle else None,
                "fix": trial.obstacle.hint if trial.obstacle else None,
            }
            for trial in trials
        ],
    }


def _page(best: Trial, findings: tuple[Finding, ...], trials: tuple[Trial, ...]) -> Iterable[str]:
    for finding in findings:
        yield _line(_MARKS[finding.state], finding.name, finding.text)
    yield _line("ok" if best.rung != "none" else "--", "isolation", f"{best.rung}: {_MEANING[best.rung]}")
    better = [trial for trial in trials[: trials.index(best)] if trial.obstacle is not None]
    if better:
        yield "\nWhy not better:\n"
        for trial in better:
            yield _line("", trial.rung, trial.obstacle.reason if trial.obstacle else "")
    fixes = dict.fromkeys(f.fix for f in findings if f.fix) | dict.fromkeys(
        trial.obstacle.hint for trial in better if trial.obstacle and trial.obstacle.hint
    )
    if fixes:
        yield "\nWhat would help:\n"
        for fix in fixes:
            yield textwrap.indent(f"{fix}\n", "  ")


def _line(mark: str, name: str, text: str) -> str:
    opening = f"{mark:2} {name:18} "
    return (
        textwrap.fill(
            text, _WIDTH, initial_indent=opening, subsequent_indent=" " * len(opening), break_on_hyphens=False
        )
        + "\n"
    )
