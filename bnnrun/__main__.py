"""`python -m bnnrun` is `bnnrun`."""

from bnnrun.cli.main import main

main()
