"""A server's jobs, over its API: the client behind `dub` when DUBBING_URL is set. Knows neither store nor web nor Ray."""
