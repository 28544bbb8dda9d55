"""Numbers: one or several figures a sample, which the network gives as they are."""
