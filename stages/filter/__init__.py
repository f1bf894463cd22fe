"""Keyword match over the sources' metadata, then pooling into partitions by host."""
