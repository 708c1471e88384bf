"""Bad input: one clear line on stderr, exit status 2, no traceback, nothing overwritten."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path


class BadInput(Exception):
    """The user's file, flag or configuration is wrong.

    Printed as ``minifleming: FILE:LINE: reason``; file and line are left out where there is none.
    """

    def __init__(self, reason: str, file: str | Path | None = None, line: int | None = None):
        place = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(" ".join(f"{place}{reason}".split()))


class RunFailed(Exception):
    """A run that cannot go on through no fault of its input (exit status 1)."""


class Parser(argparse.ArgumentParser):
    """argparse whose errors follow the house rule: one line, no usage block, exit status 2."""

    def error(self, message: str):
        if message.startswith("argument "):
            message = message[len("argument ") :]
        raise BadInput(message)


def guarded(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Run ``main(argv)`` and turn its exceptions into the project's exit statuses.

    0 done; 2 bad input; 1 a run that failed; 130 / 143 interrupted by SIGINT / SIGTERM.
    Of several ranks one prints.
    """
    old = signal.signal(signal.SIGTERM, _terminate)
    try:
        return main(argv) or 0
    except BadInput as error:
        return _say(str(error), 2)
    except RunFailed as error:
        return _say(str(error), 1)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except Terminated:
        return _say("terminated", 143)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a folder that may not be written
        return _say(f"{error.filename or 'input or output'}: {error.strerror or error}", 1)
    finally:
        signal.signal(signal.SIGTERM, old)


class Terminated(BaseException):
    """SIGTERM, raised like KeyboardInterrupt so that every loop unwinds the same way."""


class Hold:
    """Within it SIGINT and SIGTERM wait until the program asks, between two steps; a second one strikes at once."""

    came: BaseException | None = None

    def __enter__(self) -> Hold:
        self.old = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _note(self, number, frame) -> None:
        error = KeyboardInterrupt() if number == signal.SIGINT else Terminated()
        if self.came is not None:
            raise error
        self.came = error


def _terminate(signum, frame):
    raise Terminated()


def speaks() -> bool:
    """Is this the rank that prints the one line? parallel.py replaces it once the ranks know each other."""
    return int(os.environ.get("RANK", "0")) == 0


def _say(reason: str, status: int) -> int:
    if speaks():
        print(f"minifleming: {' '.join(reason.split())}", file=sys.stderr, flush=True)
    return status
