"""From a call to the queue."""
