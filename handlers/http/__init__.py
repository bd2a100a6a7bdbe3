"""How a route becomes an aiohttp handler, whatever the surface: decoding, refusals, health, the OpenAPI document."""
