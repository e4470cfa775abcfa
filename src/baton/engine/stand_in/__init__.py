"""A server that speaks vLLM's wire and has no model: for load, faults and scale."""
