//! The behaviour of endpoints for a time.

use std::time::Duration;

use webhooks_dispatch::transport::ErrorClass;

/// The behaviour of an endpoint for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    Busy,
    Dead,
    Erring,
    Flaky,
    Gone,
    Hanging,
    Panicking,
    Refusing,
    Slow,
}

impl Mood {
    const SICK: [Self; 9] = [
        Self::Busy,
        Self::Dead,
        Self::Erring,
        Self::Flaky,
        Self::Gone,
        Self::Hanging,
        Self::Panicking,
        Self::Refusing,
        Self::Slow,
    ];

    /// Returns a mood other than well; gone is rare, because it ends the endpoint.
    pub(super) fn draw_sick(rng: &mut fastrand::Rng) -> Self {
        match Self::SICK[rng.usize(..Self::SICK.len())] {
            Self::Gone if rng.u8(..4) > 0 => Self::Flaky,
            mood => mood,
        }
    }
}

/// The reaction of an endpoint to one request, after a delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    Answer { status: u16, retry_after: Option<u64> },
    Break { class: ErrorClass },
    Panic,
}

/// Returns the reaction of an endpoint in this mood, and its delay.
pub(super) fn react(
    mood: Mood,
    slow_after: Duration,
    timeout: Duration,
    rng: &mut fastrand::Rng,
) -> (Duration, Reaction) {
    let soon = match rng.u8(..4) {
        0 => Duration::ZERO,
        _ => Duration::from_millis(rng.u64(1..50)),
    };
    let answer = |status| Reaction::Answer { status, retry_after: None };
    let broken = |class| Reaction::Break { class };
    match mood {
        Mood::Well => (soon, answer(if rng.bool() { 200 } else { 204 })),
        Mood::Busy => {
            let status = [429, 503][rng.usize(..2)];
            (soon, Reaction::Answer { status, retry_after: Some(rng.u64(0..90)) })
        }
        Mood::Dead => (soon, broken(ErrorClass::Connect)),
        Mood::Erring => (soon, answer([500, 502, 504][rng.usize(..3)])),
        Mood::Gone => (soon, answer(410)),
        Mood::Hanging => (timeout * 100, broken(ErrorClass::Other)),
        Mood::Panicking => (soon, Reaction::Panic),
        Mood::Refusing => (soon, answer([301, 400, 404][rng.usize(..3)])),
        Mood::Slow => {
            let longest = (timeout + Duration::from_millis(200)).max(slow_after * 2);
            let after = slow_after + longest.saturating_sub(slow_after).mul_f64(rng.f64());
            (after, answer(200))
        }
        Mood::Flaky => match rng.u8(..6) {
            0 => (soon, broken(ErrorClass::Reset)),
            1 => (soon, broken(ErrorClass::Body)),
            2 => react(Mood::Slow, slow_after, timeout, rng),
            3 => react(Mood::Erring, slow_after, timeout, rng),
            _ => react(Mood::Well, slow_after, timeout, rng),
        },
    }
}
