"""What one intervention does that another does not."""
