"""What a run will need, before it is started: partitions, rows, bytes, hours, and whether they fit."""
