"""`python -m roslin` is the `roslin` command."""

from roslin.cli.main import main

main()
