"""What waits for generations in the triggerer."""
