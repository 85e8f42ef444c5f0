"""The front door: Invoke collections whose bodies gather, call and show."""
