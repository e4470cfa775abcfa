"""Floor 4: runs a deployment on this machine: install, start, watch, restart, stop."""
