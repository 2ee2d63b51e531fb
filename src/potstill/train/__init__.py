"""Training a teacher: learning, scoring as it goes, keeping the best, coming back after a kill."""
