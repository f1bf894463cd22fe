"""Watching a run: what its events come to, and the views of it: files, a port, a terminal, graphs."""
