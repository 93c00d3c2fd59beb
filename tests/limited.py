"""Runs a command for at most so many seconds, then ends it and every process that it started.

    python tests/limited.py SECONDS COMMAND [ARGUMENT ...]

Exits with the command's status, or with 124 after the time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

TIMED_OUT = 124


def main(limit: float, command: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ended itself, it ends the others
    # a session of its own, so that all of its processes are found
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        print(f"\nThe command took more than {limit:g} seconds and was ended: {' '.join(command)}", file=sys.stderr)
        return TIMED_OUT
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)  # its own report first
        return process.wait(30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
