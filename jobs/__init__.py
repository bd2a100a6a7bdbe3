"""When and how often: resident loops and the clock. Each calls the core; no rule of its own."""
