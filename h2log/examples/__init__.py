"""Programs that show the server at work."""
