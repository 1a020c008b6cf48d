"""`python -m poc` is `poc`; launchers that take a module (`accelerate launch --module poc ...`) start it so."""

from poc.cli import main

if __name__ == "__main__":
    main()
