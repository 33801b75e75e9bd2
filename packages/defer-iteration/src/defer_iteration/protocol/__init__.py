"""What the tasks of an iteration do."""
