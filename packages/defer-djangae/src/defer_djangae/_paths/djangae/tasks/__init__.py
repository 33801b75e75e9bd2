"""`djangae.tasks`."""
