"""Code that several tests share: servers, clients, fixtures."""
