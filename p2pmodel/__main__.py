"""`python -m p2pmodel`: the command line."""

from p2pmodel.cli import main

if __name__ == "__main__":
    main()
