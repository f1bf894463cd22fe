"""How work is run: command line, the line of stages, runner, executors, progress, reports."""
