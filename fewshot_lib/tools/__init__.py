"""Set up, serve and build the course."""
