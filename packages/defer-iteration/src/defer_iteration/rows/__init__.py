"""The rows of iterations: how they are ordered, divided and read in pages."""
