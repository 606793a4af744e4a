"""What makes a function a task."""
