"""Fetches each distinct url once into the image store and records what the web answered."""
