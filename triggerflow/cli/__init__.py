"""The command line: ``triggerflow``. Everything heavy loads inside the commands."""
