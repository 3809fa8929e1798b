-- The place of an event in a distributed trace: the values of the headers traceparent and, behind a space,
-- tracestate. NULL if it was published without one.
ALTER TABLE events ADD COLUMN trace TEXT;
