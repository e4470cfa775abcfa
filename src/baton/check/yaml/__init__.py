"""YAML as Kubernetes reads it, every character with its place, templates and broken files as far as they go."""
