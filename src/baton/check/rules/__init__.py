"""The rules, one a file; `baton.check.rule` finds them by their names."""
