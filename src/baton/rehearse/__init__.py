"""One rank's exact work of a wide deployment on one GPU or CPU: real vLLM, dummy weights, step times with spread."""
