"""Kubernetes objects as rules need them, whatever kind they came from."""
