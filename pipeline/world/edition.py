"""Which edition of the worlds this version builds."""

EDITION = 3
"""Raised when this version needs another world than an earlier one built into a workdir."""
