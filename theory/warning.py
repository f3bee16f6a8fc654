"""What a user is warned of, one class for each kind; found without torch and JAX."""


class ForecastWarning(UserWarning):
    """The forecast is asked for more than its assumptions carry."""


class QueryWarning(UserWarning):
    """Queries are fewer than their source has rows."""


class CacheWarning(UserWarning):
    """Something kept on this machine was damaged, and is made again; or it cannot be kept."""
