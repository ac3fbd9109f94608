"""`make soak`: all property tests again and again, each round with a seed of its own, until the time is up.

A failure ends it with exit code 1 and the command that repeats it.
"""

import argparse
import os
import secrets
import subprocess
import sys
from time import monotonic

TESTS = ("tests/property", "tests/unit/test_names.py", "tests/unit/test_sqltext_properties.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long to go on (default: 60)")
    minutes: float = parser.parse_args().minutes
    environment = {**os.environ, "HYPOTHESIS_PROFILE": "soak"}
    began, rounds = monotonic(), 0
    while monotonic() - began < minutes * 60:
        seed = secrets.randbelow(2**32)
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider",
                   f"--hypothesis-seed={seed}", f"--randomly-seed={seed}", *TESTS]  # fmt: skip
        sys.stdout.write(f"seed {seed}, after {(monotonic() - began) / 60:.0f} min\n")
        sys.stdout.flush()
        if subprocess.run(command, env=environment, check=False).returncode != 0:
            sys.stdout.write(f"found something; again: HYPOTHESIS_PROFILE=soak {' '.join(command)}\n")
            return 1
        rounds += 1
    sys.stdout.write(f"{rounds} rounds found nothing\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
