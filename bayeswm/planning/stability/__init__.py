"""Whether a controlled system stays near its goal."""
