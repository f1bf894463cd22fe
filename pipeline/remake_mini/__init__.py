"""The command that remakes the mini model's two small files: ``python -m pipeline.remake_mini``."""
