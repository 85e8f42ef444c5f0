"""Run a program in a session of its own, so that all of it can be ended; a script, never imported.

    python -I -S launcher.py CONTROL [--merge-output] PROGRAM [ARGUMENT ...]

CONTROL is a directory. `environment` in it holds the program's whole environment, so that no value stands in an
argument list. `lifetime` is a FIFO, open for writing as long as anything of the session lives. `pid` is written here.
Nothing is started if the process whose number is in `parent`, which started this one and reads the FIFO, was killed.
"""

import errno
import os
import sys


def main() -> None:
    """Become the program."""
    control, *command = sys.argv[1:]
    os.setsid()
    try:
        lifetime = os.open(os.path.join(control, "lifetime"), os.O_WRONLY | os.O_NONBLOCK)
        with open(os.path.join(control, "parent")) as file:
            parent = int(file.read())
        with open(os.path.join(control, "environment"), "rb") as file:
            environment = dict(entry.split(b"=", 1) for entry in file.read().split(b"\0") if entry)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            sys.exit(1)
        raise
    if os.getppid() != parent:
        sys.exit(1)
    os.set_inheritable(lifetime, True)
    with open(os.path.join(control, "pid.new"), "w") as file:
        file.write(str(os.getpid()))
    os.rename(os.path.join(control, "pid.new"), os.path.join(control, "pid"))
    if command[0] == "--merge-output":
        command.pop(0)
        os.dup2(1, 2)
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    main()
