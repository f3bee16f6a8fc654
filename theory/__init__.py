"""The ground floor: update rules, laws and curves, on NumPy, SciPy and array-API operations only."""
