//! The wait for a server that is away, in commands that go on where they were.

use webhooks_dispatch::clock::{Clock as _, SystemClock};

use crate::failure::Failure;
use crate::output::Output;

/// Makes a request again and again until it succeeds, or fails in a way that does not pass. Warns once of what passes.
pub(crate) async fn outlast<T>(
    output: Output,
    mut request: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut is_told = false;
    loop {
        let failure = match request().await {
            Ok(answer) => {
                if is_told {
                    output.note("the server answers again, and this goes on where it was");
                }
                return Ok(answer);
            }
            Err(failure) => failure,
        };
        let Some(pause) = failure.pause() else { return Err(failure) };
        if !is_told {
            output.end_progress();
            Output::warn(format!("{}; trying again", failure.one_line()));
        }
        is_told = true;
        SystemClock.sleep(pause).await;
    }
}
