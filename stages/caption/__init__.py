"""Captions for images that have none: candidates, ranks, the rotation rule, the choice."""
