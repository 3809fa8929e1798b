//! What the crash test and the process that it kills agree on.

/// The id of the endpoint.
pub const ENDPOINT: &str = "receiver";

/// How many tasks publish at once.
pub const PUBLISHERS: usize = 4;

/// How many exchanges are in flight at once.
pub const CONCURRENCY: usize = 8;

/// How many exchanges may be in flight or not settled yet: what one kill can repeat.
pub const MAX_UNSETTLED: usize = 24;
