"""Run steps without namespaces, under a filter that refuses what Docker's default profile refuses, and print what came.

Standard input holds {"tree": DIR, "folder": DIR, "steps": [...]}, each step the values of a spec and what to do with it:

    kill_after   seconds after which the step is killed
    wait_for     a file in the tree to wait for before that
    abandon      say "ready" when that file is there, and wait to be killed

One line of JSON is printed for each step. `tests.runtime.test_chroot` starts it as root.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import prctl

from runtime import chroot, seccomp
from runtime.errors import SandboxError
from runtime.spec import SandboxSpec
from runtime.zygote import Zygote
from tests.runtime.step_driver import DEFAULTS


def run_one(zygote: Zygote, request: dict, index: int, step: dict) -> dict:
    """Run one step in the tree and tell how it ended."""
    folder = Path(request["folder"]) / f"step-{index}"
    folder.mkdir()
    (folder / "work").mkdir()
    wait_for, abandon, kill = step.pop("wait_for", None), step.pop("abandon", False), step.pop("kill", False)
    text = json.dumps(step).replace("@PID@", str(os.getpid()))
    values = {**DEFAULTS, "lowers": [], "upper": None, "work": str(folder / "work"), "tree": request["tree"]}
    spec = SandboxSpec.from_json({**values, **json.loads(text)})
    result: dict = {"status": None, "error": None, "message": None}
    with (folder / "out").open("wb+") as out, (folder / "err").open("wb+") as err:
        try:
            running = zygote.run(spec, stdout=out.fileno(), stderr=err.fileno())
            while wait_for is not None and not (Path(request["tree"]) / wait_for).exists():
                time.sleep(0.01)
            if abandon:
                print("ready", flush=True)
                time.sleep(60)
            if kill:
                running.kill()
            result["status"] = running.wait().status
        except SandboxError as error:
            result |= {"error": type(error).__name__, "message": error.message, "exit_code": error.exit_code}
        out.seek(0)
        err.seek(0)
        result |= {"out": out.read().decode(), "err": err.read().decode()}
    result["aside"] = os.listdir(folder / "work")
    return result


def main() -> int:
    """Run the steps of the request."""
    request = json.load(sys.stdin)
    obstacle = chroot.find_obstacle(Path(request["folder"]))
    if obstacle:
        sys.stderr.write(obstacle)
        return 4
    prctl.set_no_new_privs(1)
    seccomp.load()
    with Zygote("chroot") as zygote:
        chroot.give_up_nodes()
        for index, step in enumerate(request["steps"]):
            print(json.dumps(run_one(zygote, request, index, step)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
