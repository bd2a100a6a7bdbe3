"""The webhook surface: what providers send in (`inbox_*`), what goes out to endpoints (`outbox_*`)."""
