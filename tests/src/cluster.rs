//! A run of real processes on a real database: each records its actions, and a judge reads the
//! record.

mod journal;
mod judge;
mod recording;

// The public interface is:
pub use self::journal::Journal;
pub use self::judge::judge;
pub use self::recording::{RecordingStore, RecordingTransport};
