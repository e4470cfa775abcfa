"""Floor 2: pure arithmetic on what a deployment will do: memory so far."""
