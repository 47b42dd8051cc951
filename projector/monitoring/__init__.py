"""What a daemon says of itself over HTTP while it works: is it healthy, how fresh is the table, what is wrong."""
