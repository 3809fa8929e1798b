-- The headers of the response that hold no secret, one per line: retry-after: 120
ALTER TABLE attempts ADD COLUMN response_headers TEXT;
