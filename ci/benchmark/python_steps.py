"""Run commands one after the other, each on what the one before has left, by the project's runtime and nothing else.

What a builder in Python cannot leave out where it runs steps: a process for each, forked from one that has loaded what
steps need, in namespaces of its own, on an overlay of what was there before. No Dockerfile, no cache, no layer, no image.

    python python_steps.py TREE FOLDER COMMAND TIMES

Run by the root of a namespace that has sub-ids, with mounts and processes of its own. FOLDER is made.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path

import prctl

from runtime import sandbox, seccomp, syscalls
from runtime.spec import SandboxSpec
from runtime.stubs import make_skeleton


def run_steps(tree: Path, folder: Path, command: str, times: int) -> None:
    """Run a command on *tree* and what was changed since, which goes into *folder*."""
    seccomp.compile_filters(supervised=False)
    gc.disable()  # as in the process that starts the project's steps
    folder.mkdir()
    skeleton = make_skeleton(folder / "skeleton")
    lowers: tuple[Path, ...] = (tree,)
    for number in range(times):
        upper, work = folder / f"upper-{number}", folder / f"work-{number}"
        upper.mkdir()
        work.mkdir()
        spec = SandboxSpec(
            args=("/bin/sh", "-c", command),
            environ=(("PATH", "/bin"),),
            lowers=lowers,
            upper=upper,
            work=work,
            skeleton=skeleton,
            hosts=b"127.0.0.1 localhost\n",
            resolv_conf=b"",
        )
        pid = syscalls.clone(sandbox.NAMESPACES)
        if pid == 0:
            _become_step(spec)
        _, status = os.waitpid(pid, 0)
        if status:
            sys.exit(os.waitstatus_to_exitcode(status))
        lowers = (*lowers, upper)


def _become_step(spec: SandboxSpec) -> None:
    try:
        prctl.set_pdeathsig(signal.SIGKILL)
        sandbox.leave_session()
        sandbox.become_step(spec, (None, 1, 2), lambda _: None, sandbox.prepare())
    except BaseException as error:  # noqa: BLE001  this process ends here
        os.write(2, f"{error}\n".encode())
    finally:
        os._exit(125)


if __name__ == "__main__":
    run_steps(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
