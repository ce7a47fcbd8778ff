"""The control loop: planning and acting on systems, real or simulated."""
