"""Exit statuses and error messages: bad input gives one line on stderr and exit status 2."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path


class BadInput(Exception):
    """The user's file, flag or configuration is wrong (exit status 2).

    Printed as ``minifleming: FILE:LINE: reason``; file and line are left out where there is none.
    """

    def __init__(self, reason: str, file: str | Path | None = None, line: int | None = None):
        if file is not None:
            reason = f"{file}: {reason}" if line is None else f"{file}:{line}: {reason}"
        super().__init__(" ".join(reason.split()))


class RunFailed(Exception):
    """The run cannot continue although its input is valid (exit status 1)."""


class Terminated(BaseException):
    """SIGTERM, raised like KeyboardInterrupt so that every loop unwinds the same way."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are BadInput: one line, no usage block, exit status 2."""

    def error(self, message: str):
        raise BadInput(message.removeprefix("argument "))


def run_cli(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Run ``main(argv)`` and return its exit status; errors print one line, on one rank only.

    0 done; 1 a run that failed; 2 bad input; 130 or 143 interrupted by SIGINT or SIGTERM.
    """
    previous = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        return main(argv) or 0
    except BadInput as error:
        return _report(str(error), 2)
    except RunFailed as error:
        return _report(str(error), 1)
    except KeyboardInterrupt:
        return _report("interrupted", 130)
    except Terminated:
        return _report("terminated", 143)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a folder without write permission
        return _report(f"{error.filename or 'input or output'}: {error.strerror or error}", 1)
    finally:
        signal.signal(signal.SIGTERM, previous)


class DeferSignals:
    """Defers SIGINT and SIGTERM until the training loop polls ``received``.

    A second signal interrupts immediately.
    """

    received: BaseException | None = None

    def __enter__(self) -> DeferSignals:
        self.previous = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            self.previous[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _record(self, number, frame) -> None:
        error = KeyboardInterrupt() if number == signal.SIGINT else Terminated()
        if self.received is not None:
            raise error
        self.received = error


def is_reporting_rank() -> bool:
    """Whether this rank prints the error; distributed.py replaces it when ranks are connected."""
    return int(os.environ.get("RANK", "0")) == 0


def _raise_terminated(number, frame):
    raise Terminated()


def _report(reason: str, status: int) -> int:
    if is_reporting_rank():
        print(f"minifleming: {' '.join(reason.split())}", file=sys.stderr, flush=True)
    return status
