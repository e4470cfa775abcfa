"""Floor 1: the Recipe a person writes and the Deployment it resolves to. Knows no engine flag by heart."""
