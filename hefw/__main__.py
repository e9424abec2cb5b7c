"""`python -m hefw` is the command `hefw`."""

from hefw.cli import main

if __name__ == "__main__":
    main()
