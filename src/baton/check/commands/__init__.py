"""Command lines of engines: found, taken apart, held against the release that runs."""
