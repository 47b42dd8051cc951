"""What the application relies on of its ports, for the implementations in memory and the real ones alike."""
