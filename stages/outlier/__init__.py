"""Scores by a vision-language model and a remote-sensing detector, then the cut."""
