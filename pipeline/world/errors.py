"""The one error of this room."""


class WorldError(Exception):
    """The miniature world cannot be built or served; the message is one line and says what to do."""
