"""What would have happened: abduction of noise, and episodes run again with it."""
