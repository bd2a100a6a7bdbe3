"""The parts of all surfaces that make a route a handler: decoding, refusals, health, the OpenAPI document."""
