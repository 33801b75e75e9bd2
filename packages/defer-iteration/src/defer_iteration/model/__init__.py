"""The nouns of an iteration, and how they change."""
