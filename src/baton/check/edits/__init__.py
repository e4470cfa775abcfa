"""Edits that do what a fix says, in the file as it is written."""
