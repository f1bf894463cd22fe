"""What a run will need, before it is started: partitions, rows, bytes, hours, and whether they fit.

`estimate.needs` makes a `needs.StepNeed` of every step, for a `machine.Machine`; `text.price_lines` shows them.
"""
