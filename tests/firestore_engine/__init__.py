"""gcloudc's Datastore backend, for Google's Firestore emulator in Datastore mode."""
