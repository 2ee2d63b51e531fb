"""The one loop, and what runs it from a teacher's file to a result."""
