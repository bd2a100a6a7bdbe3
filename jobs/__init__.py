"""Jobs and their times: resident loops and the clock. Each calls the core and has no rule of its own."""
