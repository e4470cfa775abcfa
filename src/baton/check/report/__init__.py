"""What was found, for a terminal, for programs, and a page on every rule."""
