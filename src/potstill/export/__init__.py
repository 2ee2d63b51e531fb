"""A policy in other people's formats, checked against what it came from before it is written."""
