"""Warnings of this side; found without torch, so that the command line can ask for them."""


class QueryWarning(UserWarning):
    """Queries are fewer than their source has rows."""


class CacheWarning(UserWarning):
    """Something kept on this machine was damaged, and is made again; or it cannot be kept."""
