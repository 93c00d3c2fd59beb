"""`python -m diet_lightning`, and the entry point of `diet`."""

from __future__ import annotations

import sys

EXIT_ERROR, EXIT_SIGTERM = 1, 128 + 15


def main(args: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        args: Arguments; None for the process's own.

    Returns:
        The exit status: 0 on success; 1 after an error, which is printed in one sentence; 143 after SIGTERM.
    """
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from diet_lightning.cli import COMMANDS, run_command
    from diet_lightning.cli.lightning import run_lightning
    from diet_lightning.errors import DIETError

    given = sys.argv[1:] if args is None else args
    try:
        if given and given[0] in COMMANDS:
            run_command(given)
        else:
            run_lightning(given)
    except DIETError as error:
        print(f"diet: error: {error}", file=sys.stderr)
        return EXIT_ERROR
    except SIGTERMException:
        return EXIT_SIGTERM
    return 0


def run() -> None:
    """Entry point: exits with the status."""
    sys.exit(main())


if __name__ == "__main__":
    run()
