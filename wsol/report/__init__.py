"""What a run shows: example pictures."""
