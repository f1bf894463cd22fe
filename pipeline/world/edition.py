"""Which edition of the worlds this version builds."""

EDITION = 2
"""Raised when this version needs another world than an earlier one built into a workdir."""
