"""`python -m poolproof` is the `poolproof` command."""

from poolproof.cli import main

if __name__ == "__main__":
    main()
