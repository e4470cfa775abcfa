"""Plan, check, prove and run disaggregated LLM serving on vLLM."""
