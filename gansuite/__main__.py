"""``python -m gansuite``, and what the command ``gansuite`` calls."""

import sys


def main() -> None:
    """`gansuite.cli.main`; a Ctrl-C while it is being imported ends the command without a word."""
    try:
        from gansuite import cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
