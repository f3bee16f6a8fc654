"""A refusal: what was asked cannot be done, and the user can mend it."""

from __future__ import annotations


class Refusal(ValueError):
    """What a user can mend: the message names the field, its value and the fix.

    The command line turns a refusal into one line, `error: ...`; every other exception is a bug and keeps its
    traceback.
    """
