"""Run a program in a session of its own, so that all of it can be ended; a script, never imported.

    python -I -S launcher.py CONTROL [--merge-output] PROGRAM [ARGUMENT ...]

CONTROL is a directory. `environment` in it holds the program's whole environment, so that no value stands in an
argument list. `lifetime` is a FIFO, open for writing as long as anything of the session lives. `pid` is written here.
"""

import os
import sys


def main() -> None:
    """Become the program."""
    control, *command = sys.argv[1:]
    os.setsid()
    os.set_inheritable(os.open(os.path.join(control, "lifetime"), os.O_WRONLY), True)
    with open(os.path.join(control, "environment"), "rb") as file:
        environment = dict(entry.split(b"=", 1) for entry in file.read().split(b"\0") if entry)
    with open(os.path.join(control, "pid.new"), "w") as file:
        file.write(str(os.getpid()))
    os.rename(os.path.join(control, "pid.new"), os.path.join(control, "pid"))
    if command[0] == "--merge-output":
        command.pop(0)
        os.dup2(1, 2)
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    main()
