"""Facts as data, each with its source: what released engines accept, what hardware and models are."""
