"""Standard streams that the caller has closed (`>&-`)."""

from __future__ import annotations

import errno
import os
import sys

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
_closed_streams: set[str] = set()


def replace_closed_streams() -> None:
    """Open the null device in place of closed standard streams.

    Otherwise the next file that is opened would get their number, and what is printed.
    """
    for descriptor, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is not None:
            continue
        _closed_streams.add(name)
        null_device = os.open(os.devnull, os.O_RDWR)
        if null_device != descriptor:
            os.dup2(null_device, descriptor)
            os.close(null_device)
        os.set_inheritable(descriptor, True)
        setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def require_open_stdout() -> None:
    """Raise OSError if the caller has closed standard output, and a document would be lost."""
    if "stdout" in _closed_streams:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard output")
