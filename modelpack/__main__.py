"""`python -m modelpack`, and the `modelpack` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line; leaves by SystemExit with the exit code of what happened."""
    from modelpack.cli.main import run

    run()


if __name__ == "__main__":
    main()
