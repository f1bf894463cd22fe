"""What a user can put right: one line that says what was tried and what to do."""

import errno

_FULL = (errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
    """A command that cannot be carried out as asked."""


class ClusterLostError(Exception):
    """A cluster that cannot be worked on any more: what was committed stands, and the next run resumes."""


def is_disk_full(error: OSError) -> bool:
    """Return whether a write failed for want of space, or of quota."""
    return error.errno in _FULL
