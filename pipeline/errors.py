"""What a user can put right: one line that says what was tried and what to do."""


class UserError(Exception):
    """A command that cannot be carried out as asked."""
