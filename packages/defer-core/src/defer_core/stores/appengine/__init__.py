"""Records on App Engine's own Datastore, by the bundled services."""
