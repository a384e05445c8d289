"""``python -m gansuite``, and what the command ``gansuite`` calls."""

import os
import sys


def main() -> None:
    """`gansuite.cli.main`; a Ctrl-C while it is being imported ends the command without a word."""
    # what is lost is said in a sentence, and not in C++; read once, when torch is imported
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        from gansuite import cli, errors
    except KeyboardInterrupt:
        sys.exit(130)
    errors.ends_with_its_command()
    cli.main()


if __name__ == "__main__":
    main()
