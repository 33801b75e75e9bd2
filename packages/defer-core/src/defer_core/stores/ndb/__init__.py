"""Records on Cloud Datastore and Firestore, by google-cloud-ndb."""
