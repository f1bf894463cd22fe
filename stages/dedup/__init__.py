"""Decode check, hashes, and clusters of copies across all sources."""
