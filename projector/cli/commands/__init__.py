"""The commands, by theme. Each imports what it uses when it runs, so that the others start fast."""
