"""Floor 4: a Deployment as files that something else runs: Kubernetes, Dynamo, or a shell on this machine.

Pure: a Deployment in, relative paths and texts out. The same Deployment gives the same bytes.
"""
