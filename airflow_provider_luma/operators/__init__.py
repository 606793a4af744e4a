"""What submits generations."""
