-- The headers of the response that hold no secret, a line each: retry-after: 120
ALTER TABLE attempts ADD COLUMN response_headers TEXT;
