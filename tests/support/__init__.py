"""What renders are held against: schemas, a real API server, readers of YAML, what kubelets and shells do to words."""
