"""Floor 0: errors, files, logging. Knows nothing of serving."""
