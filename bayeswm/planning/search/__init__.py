"""How planners search: samples, derivatives, Riccati recursions."""
