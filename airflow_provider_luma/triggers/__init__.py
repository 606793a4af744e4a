"""The trigger, and the polling for all triggers of an event loop."""
