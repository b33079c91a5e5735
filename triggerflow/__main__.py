"""``python -m triggerflow``: the command line."""

from triggerflow.cli.main import main

if __name__ == "__main__":
    main()
