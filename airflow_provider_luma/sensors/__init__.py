"""What waits for generations."""
