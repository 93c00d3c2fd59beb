"""`python -m diet_lightning`, and the entry point of `diet`."""

from __future__ import annotations

import sys

from diet_lightning.__about__ import __version__
from diet_lightning.cli import overview, run_command
from diet_lightning.cli.usage import UsageError
from diet_lightning.errors import DIETError

EXIT_ERROR, EXIT_USAGE, EXIT_SIGTERM = 1, 2, 128 + 15


def main(args: list[str] | None = None) -> int:
    """Runs the command line with these arguments; None takes the process's own.

    Returns:
        The exit status: 0 on success, 1 after an error, which is printed in one sentence, 2 after a usage error, 143 after
        SIGTERM.
    """
    given = sys.argv[1:] if args is None else args
    try:
        if not given or given[0] in ("-h", "--help"):
            print(overview())
        elif given[0] == "--version":
            print(f"diet {__version__}")
        else:
            run_command(given)
    except UsageError as error:
        print(f"diet: error: {error}\nSee `{error.help}`.", file=sys.stderr)
        return EXIT_USAGE
    except DIETError as error:
        print(f"diet: error: {error}", file=sys.stderr)
        return EXIT_ERROR
    except SystemExit as stop:
        if type(stop) is SystemExit:  # of a parser that has printed what it was asked for
            raise
        return EXIT_SIGTERM  # Lightning's SIGTERMException, a SystemExit without a status
    return 0


def run() -> None:
    """Entry point: exits with the status."""
    sys.exit(main())


if __name__ == "__main__":
    run()
