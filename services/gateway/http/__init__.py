"""HTTP: the application, what surrounds each request, the server."""
