"""Floor 4: `baton check`: recipes and other people's manifests, held against what their engine really accepts."""
