"""What endpoint events mean: pure functions over immutable values, the standard library only."""
