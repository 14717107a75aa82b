"""``python -m pooling``: the same as the console script."""

from pooling.cli import main

if __name__ == "__main__":
    main()
