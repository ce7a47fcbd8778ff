"""What must not happen on the way: constraints, safe sets, chances."""
