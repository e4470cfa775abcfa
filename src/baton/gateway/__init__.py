"""Floor 4: serves a deployment on one OpenAI-compatible address; every request goes to a prefill and a decode rank."""
