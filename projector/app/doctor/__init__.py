"""What will hurt before the first run: facts of broker and database, and the checks that turn them into findings."""
