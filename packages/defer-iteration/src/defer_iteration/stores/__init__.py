"""Where iterations are stored."""
