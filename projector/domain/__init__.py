"""What endpoint events mean: pure functions over immutable values, with the standard library only."""
