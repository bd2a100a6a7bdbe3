-- A scrape of the metrics asks how many attempts there are whose end nobody knows, and how old the oldest is.

CREATE INDEX payment_attempts_unknown ON payment_attempts (created_at) WHERE state = 'unknown';
