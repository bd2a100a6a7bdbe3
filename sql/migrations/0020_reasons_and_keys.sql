-- The reason why an event that came in has no effect: a code and a sentence, as `ignored` alone says nothing.
ALTER TABLE inbox_events ADD COLUMN reason text CHECK (char_length(reason) <= 500);
GRANT UPDATE (reason) ON inbox_events TO tallystick_serving;
