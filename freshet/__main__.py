"""`python -m freshet` is the command `freshet`."""

from freshet.cli.main import main

main()
