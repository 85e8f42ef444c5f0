"""Run a program and end everything that it leaves behind, in whatever session; a script, never imported.

    python -I -S supervisor.py ERROR PROGRAM [ARGUMENT ...]

ERROR is a descriptor that takes the error number if the program cannot be started. The exit code is the program's.
SIGTERM ends the program; the kernel sends it, too, when the process that started this one dies. Without `/proc` and
`prctl`, which only Linux has, processes that leave the program's process group are not found.
"""

import ctypes
import os
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_END_TIMEOUT_S = 5.0


def main() -> None:
    """Run the program until it exits or SIGTERM arrives, and kill all its descendants."""
    error_descriptor, command = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(error_descriptor, False)
    parent = os.getppid()
    if hasattr(os, "pidfd_open"):  # Linux
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    if os.getppid() != parent:
        return
    program = os.fork()
    if program == 0:
        _start(command, error_descriptor)
    os.close(error_descriptor)
    status = _wait(program)
    _kill_descendants(program)
    _exit_like(status)


def _start(command: list[str], error_descriptor: int) -> None:
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGCHLD})
        os.execvp(command[0], command)
    except OSError as error:
        os.write(error_descriptor, str(error.errno).encode())
    finally:
        os._exit(127)


def _wait(program: int) -> int:
    """Return the status of the program once it has exited, or that of a killed one after SIGTERM."""
    while True:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)  # also reaps what the program has left behind
            except ChildProcessError:
                return signal.SIGKILL
            if pid == program:
                return status
            if pid == 0:
                break
        if signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGTERM:
            return signal.SIGKILL


def _kill_descendants(program: int) -> None:
    """Kill all children until there are none; those of a killed one become our own."""
    deadline = time.monotonic() + _END_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            os.killpg(program, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        for pid in _list_children():
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def _list_children() -> list[int]:
    children = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                children.append(int(name))
    return children


def _exit_like(status: int) -> None:
    """End as the program did."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
