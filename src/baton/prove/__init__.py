"""Floor 5: is it really disaggregated, and are the tokens right?"""
