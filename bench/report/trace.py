"""Where the time of a person's first connection goes, of what `postern trace` says of it."""
