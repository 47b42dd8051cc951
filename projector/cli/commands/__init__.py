"""The commands, by topic. Each imports what it uses when it runs, so that the others start fast."""
