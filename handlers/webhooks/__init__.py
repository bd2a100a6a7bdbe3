"""The webhook surface: events that providers send in (`inbox_*`), events that go out to endpoints (`outbox_*`)."""
