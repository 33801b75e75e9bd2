"""The project of the example: a shop that keeps its books with deferred tasks."""
