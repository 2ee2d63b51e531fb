"""`potstill …` and `python -m potstill …`. What takes time to import comes where Ctrl-C is answered already."""

import sys


def main() -> None:
    """The entry point. Exit status: `cli.main.main`'s, and 130 if interrupted."""
    try:
        from potstill.cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("potstill: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
