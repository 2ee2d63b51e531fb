"""The smallest student that keeps a stated share of its teacher, and how sure that is."""
