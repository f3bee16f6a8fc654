"""The command `onearm`, and `python -m onearm`."""

from __future__ import annotations


def main() -> None:
    """Entry point of the console script; a package that hides ours has been refused by `import onearm` before."""
    from experiments.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
