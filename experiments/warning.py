"""The one warning a forecast gives."""


class ForecastWarning(UserWarning):
    """The forecast is asked for more than its assumptions carry."""
