"""A static page that runs a model in the browser, and the command that writes it."""
