"""Batches drawn from many callers, formed only when the model is free. No Ray in here."""
