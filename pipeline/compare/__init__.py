"""One recipe on several targets."""
