"""`python -m morphable`, and so `torchrun -m morphable train ...`."""

from morphable.cli.main import main

if __name__ == "__main__":
    main()
