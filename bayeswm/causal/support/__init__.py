"""What a log supports: positivity, and the value of other policies."""
