"""From a Dockerfile and a request to a graph of vertices."""
