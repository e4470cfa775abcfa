"""Floor 2: pure decisions. No I/O, no clock, no chance: time and randomness are passed in."""
