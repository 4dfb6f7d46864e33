"""`python -m h2log` is the command `h2log`."""

from h2log.cli import main

if __name__ == "__main__":
    main()
