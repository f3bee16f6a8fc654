"""The one warning that queries give; found without torch, so that the command line can ask for it."""


class QueryWarning(UserWarning):
    """Queries are fewer than their source has rows."""
