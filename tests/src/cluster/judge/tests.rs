//! Small stories, each with a fault and without it: the judge distinguishes the two.

use webhooks_core::DeliveryId;
use webhooks_dispatch::store::{Claim, Outcome};

use super::super::journal::{Answer, Claimed, Question, Settlement};
use super::*;

const LEASE: Duration = Duration::from_secs(5);

/// A delivery: the number of an event, and an endpoint.
type To = (u64, &'static str);

/// A story with one line every 10 milliseconds.
struct Tale {
    at: Timestamp,
    lines: Vec<Line>,
    kept: BTreeMap<To, DeliveryStatus>,
}

fn event(number: u64) -> EventId {
    format!("evt-{number}").parse().unwrap()
}

fn claim((event, endpoint): To, token: u64) -> journal::Claim {
    let delivery = DeliveryId::from_u64(event * 2 + u64::from(endpoint == "ordered"));
    journal::Claim(Claim { delivery, token })
}

impl Tale {
    fn new() -> Self {
        let at = Timestamp::from_unix_seconds(1_767_225_600);
        Self { at, lines: Vec::new(), kept: BTreeMap::new() }
    }

    fn tell(&mut self, process: &str, happening: Happening) -> u64 {
        self.at = self.at + Duration::from_millis(10);
        self.lines.push(Line { at: self.at, process: process.to_owned(), happening });
        u64::try_from(self.lines.len()).unwrap()
    }

    /// Lets time pass, in which these processes give signs of life.
    fn pass(&mut self, time: Duration, alive: &[&str]) {
        let until = self.at + time;
        while self.at < until {
            self.at = (self.at + Duration::from_millis(100)).min(until);
            for process in alive {
                self.extend(process, &[]);
            }
        }
    }

    fn ask(&mut self, process: &str, question: Question) -> u64 {
        let call = u64::try_from(self.lines.len()).unwrap();
        self.tell(process, Happening::Asked { call, question });
        call
    }

    fn answer(&mut self, process: &str, call: u64, answer: Answer) {
        self.tell(process, Happening::Answered { call, answer: Some(answer) });
    }

    fn publishes(&mut self, process: &str, number: u64) -> u64 {
        for endpoint in ["free", "ordered"] {
            self.kept.insert((number, endpoint), DeliveryStatus::Delivered);
        }
        self.ask(process, Question::Publish { events: vec![event(number)] })
    }

    fn published(&mut self, process: &str, call: u64) {
        self.answer(process, call, Answer::Published { deliveries: vec![Some(2)] });
    }

    fn publish(&mut self, process: &str, number: u64) {
        let call = self.publishes(process, number);
        self.published(process, call);
    }

    fn claims(&mut self, process: &str) -> u64 {
        let (now, until) = (self.at, self.at + LEASE);
        self.ask(process, Question::Claim { now, until })
    }

    fn claimed(&mut self, process: &str, call: u64, token: u64, to: &[To]) {
        let claimed = |to: &To| Claimed {
            claim: claim(*to, token),
            event: event(to.0),
            endpoint: to.1.parse().unwrap(),
            attempt: 1,
            since: self.at,
        };
        let claimed = to.iter().map(claimed).collect();
        self.answer(process, call, Answer::Claimed { claimed });
    }

    fn claim(&mut self, process: &str, token: u64, to: &[To]) {
        let call = self.claims(process);
        self.claimed(process, call, token, to);
    }

    fn extend(&mut self, process: &str, claims: &[journal::Claim]) {
        let (claims, until) = (claims.to_vec(), self.at + LEASE);
        let call = self.ask(process, Question::Extend { claims, until });
        self.answer(process, call, Answer::Extended { lost: Vec::new() });
    }

    /// Sends, and gets this answer.
    fn send(&mut self, process: &str, to: To, status: u16) {
        let (exchange, event, endpoint) = (self.lines.len(), event(to.0), to.1.parse().unwrap());
        let exchange = u64::try_from(exchange).unwrap();
        self.tell(process, Happening::Sent { exchange, event, endpoint });
        let response = Response::Status(status);
        self.tell(process, Happening::Ended { exchange, response });
    }

    fn settles(&mut self, process: &str, token: u64, to: To, outcome: Outcome) -> u64 {
        let is_tried = outcome != Outcome::Released;
        let settlement = Settlement { claim: claim(to, token), outcome, is_tried };
        self.ask(process, Question::Settle { settlements: vec![settlement] })
    }

    fn settled(&mut self, process: &str, call: u64) {
        self.answer(process, call, Answer::Settled { kept: vec![true] });
    }

    fn settle(&mut self, process: &str, token: u64, to: To, outcome: Outcome) {
        let call = self.settles(process, token, to, outcome);
        self.settled(process, call);
    }

    /// Claims, sends and settles successfully.
    fn deliver(&mut self, process: &str, token: u64, to: To) {
        self.claim(process, token, &[to]);
        self.send(process, to, 200);
        self.settle(process, token, to, Outcome::Delivered);
    }

    fn kill(&mut self, process: &str) {
        self.tell(process, Happening::Killed);
    }

    fn crash(&mut self) {
        self.tell("test", Happening::Crashed);
    }

    fn judge(&self) -> Result<Counters, String> {
        let endpoint = Endpoint::new("https://example.com/", "my-secret-key").unwrap();
        let endpoints = BTreeMap::from([
            ("free".parse().unwrap(), endpoint.clone()),
            ("ordered".parse().unwrap(), endpoint.ordered()),
        ]);
        let settings = EngineSettings { lease: LEASE, max_unsettled: 2, ..Default::default() };
        let kept = self.kept.iter();
        let kept =
            kept.map(|((number, to), status)| (event(*number), to.parse().unwrap(), *status));
        judge_lines(&self.lines, &endpoints, &settings, kept)
    }

    #[track_caller]
    fn passes(&self) {
        if let Err(story) = self.judge() {
            panic!("{story}");
        }
    }

    #[track_caller]
    fn breaks(&self, promise: &str) {
        let story = self.judge().expect_err("a broken promise");
        assert!(story.lines().last().unwrap().starts_with(promise), "{story}");
    }
}

/// A story in which event 1 is delivered to `ordered`, and is pending for `free`.
fn one_event() -> Tale {
    let mut tale = Tale::new();
    tale.publish("a", 1);
    tale.deliver("a", 1, (1, "ordered"));
    tale
}

const D: To = (1, "free");

#[test]
fn an_accepted_event_that_is_never_delivered_is_found() {
    let mut tale = one_event();
    tale.kept.insert(D, DeliveryStatus::Pending);
    tale.breaks("accepted means delivered: event 1 for e0 is pending");
    tale.kept.remove(&D);
    tale.breaks("accepted means delivered: event 1 for e0 is lost");
    tale.kept.insert(D, DeliveryStatus::Delivered);
    tale.breaks("accepted means delivered: event 1 for e0 is delivered");
    tale.deliver("b", 2, D);
    tale.passes();
}

#[test]
fn an_event_whose_publisher_never_heard_may_be_lost() {
    let mut tale = one_event();
    tale.deliver("b", 2, D);
    tale.publishes("a", 2);
    tale.kill("a");
    tale.kept.retain(|(number, _), _| *number == 1);
    tale.passes();
    tale.publish("b", 2);
    tale.kept.retain(|(number, _), _| *number == 1);
    tale.breaks("accepted means delivered: event 2 for e0 is lost");
}

#[test]
fn a_delivery_that_is_taken_twice_needs_a_kill() {
    for is_killed in [false, true] {
        let mut tale = one_event();
        tale.claim("a", 2, &[D]);
        tale.send("a", D, 200);
        if is_killed {
            tale.kill("a");
        }
        tale.pass(LEASE, if is_killed { &["b"] } else { &["a", "b"] });
        tale.deliver("b", 3, D);
        if is_killed {
            tale.passes();
        } else {
            tale.breaks("leases are kept: that of event 1 for e0 ran out");
        }
    }
}

#[test]
fn a_lease_that_runs_out_is_explained_by_a_worker_that_was_silent() {
    let mut tale = one_event();
    tale.claim("a", 2, &[D]);
    tale.send("a", D, 200);
    tale.pass(LEASE, &["b"]);
    tale.deliver("b", 3, D);
    tale.passes();
}

#[test]
fn two_workers_may_not_hold_a_delivery_at_a_time() {
    let mut tale = one_event();
    tale.claim("a", 2, &[D]);
    tale.deliver("b", 3, D);
    tale.breaks("one holder at a time: event 1 for e0 is leased already");
    // A delivery of a killed process is still leased.
    let mut tale = one_event();
    tale.claim("a", 2, &[D]);
    tale.kill("a");
    tale.pass(LEASE / 2, &["b"]);
    tale.deliver("b", 3, D);
    tale.breaks("one holder at a time: event 1 for e0 is leased already");
}

#[test]
fn a_lease_that_was_extended_lasts_longer() {
    let mut tale = one_event();
    tale.claim("a", 2, &[D]);
    tale.pass(LEASE / 2, &["a"]);
    tale.extend("a", &[claim(D, 2)]);
    tale.kill("a");
    tale.pass(LEASE * 3 / 4, &["b"]);
    tale.deliver("b", 3, D);
    tale.breaks("one holder at a time: event 1 for e0 is leased already");
}

#[test]
fn a_delivery_that_is_handed_back_may_be_claimed_before_that_is_answered() {
    for outcome in [Outcome::Released, Outcome::Retrying { due_at: Timestamp::UNIX_EPOCH }] {
        let mut tale = one_event();
        tale.claim("a", 2, &[D]);
        if outcome != Outcome::Released {
            tale.send("a", D, 503);
        }
        let claiming = tale.claims("b");
        let settling = tale.settles("a", 2, D, outcome);
        tale.claimed("b", claiming, 3, &[D]);
        tale.settled("a", settling);
        tale.send("b", D, 200);
        tale.settle("b", 3, D, Outcome::Delivered);
        tale.passes();
    }
}

#[test]
fn what_was_settled_as_delivered_is_over() {
    let mut tale = one_event();
    tale.deliver("a", 2, D);
    tale.send("a", D, 200);
    tale.breaks("one attempt a claim: event 1 for e0 is sent without one");
    let mut tale = one_event();
    tale.deliver("a", 2, D);
    tale.pass(LEASE, &["b"]);
    tale.deliver("b", 3, D);
    tale.breaks("settled for good: event 1 for e0 is handed out again");
}

#[test]
fn a_settlement_that_nobody_heard_of_may_hold_or_not() {
    let mut tale = one_event();
    tale.claim("a", 2, &[D]);
    tale.send("a", D, 200);
    tale.settles("a", 2, D, Outcome::Delivered);
    tale.kill("a");
    tale.passes();
    tale.pass(LEASE, &["b"]);
    tale.deliver("b", 3, D);
    tale.passes();
}

#[test]
fn an_ordered_endpoint_gets_one_after_another() {
    let second = (2, "ordered");
    for is_first_settled in [false, true] {
        let mut tale = Tale::new();
        tale.publish("a", 1);
        tale.publish("b", 2);
        tale.claim("a", 1, &[(1, "ordered")]);
        tale.send("a", (1, "ordered"), 200);
        let settling =
            is_first_settled.then(|| tale.settles("a", 1, (1, "ordered"), Outcome::Delivered));
        tale.claim("b", 2, &[second]);
        if let Some(call) = settling {
            tale.settled("a", call);
        }
        tale.send("b", second, 200);
        tale.settle("b", 2, second, Outcome::Delivered);
        tale.deliver("b", 3, D);
        tale.deliver("b", 4, (2, "free"));
        if is_first_settled {
            tale.passes();
        } else {
            tale.breaks("order: event 2 for e1 is sent before event 1 for e1 has ended");
        }
    }
}

#[test]
fn a_settlement_that_did_not_hold_lets_nothing_overtake() {
    let first = (1, "ordered");
    for is_claimed_again in [false, true] {
        let mut tale = Tale::new();
        tale.publish("a", 1);
        tale.publish("b", 2);
        tale.claim("a", 1, &[first]);
        tale.send("a", first, 200);
        tale.settles("a", 1, first, Outcome::Delivered);
        tale.kill("a");
        tale.pass(LEASE, &["b"]);
        if is_claimed_again {
            tale.claim("b", 2, &[first]);
        }
        tale.deliver("b", 3, (2, "ordered"));
        tale.deliver("b", 4, D);
        tale.deliver("b", 5, (2, "free"));
        if is_claimed_again {
            tale.breaks("order: event 2 for e1 is sent before event 1 for e1 has ended");
        } else {
            tale.passes();
        }
    }
}

#[test]
fn events_that_are_published_at_once_have_either_order() {
    let mut tale = Tale::new();
    let first = tale.publishes("a", 1);
    tale.publish("b", 2);
    tale.published("a", first);
    for (number, token) in [(2, 1), (1, 3)] {
        tale.deliver("b", token, (number, "ordered"));
        tale.deliver("b", token + 1, (number, "free"));
    }
    tale.passes();
}

#[test]
fn results_that_are_not_settled_are_bounded() {
    for is_settled in [false, true] {
        let mut tale = Tale::new();
        for number in 1..=3 {
            tale.publish("a", number);
            tale.deliver("b", number, (number, "ordered"));
        }
        tale.claim("a", 9, &[(1, "free"), (2, "free"), (3, "free")]);
        tale.send("a", (1, "free"), 200);
        tale.send("a", (2, "free"), 200);
        if is_settled {
            tale.settle("a", 9, (1, "free"), Outcome::Delivered);
        }
        tale.send("a", (3, "free"), 200);
        for number in if is_settled { 2..=3 } else { 1..=3 } {
            tale.settle("a", 9, (number, "free"), Outcome::Delivered);
        }
        if is_settled {
            tale.passes();
        } else {
            tale.breaks("results are bounded: 3 of 2 unsettled");
        }
    }
}

#[test]
fn a_failure_is_not_settled_as_delivered() {
    let mut tale = one_event();
    tale.claim("a", 2, &[D]);
    tale.send("a", D, 503);
    tale.settle("a", 2, D, Outcome::Delivered);
    tale.breaks("results are true: event 1 for e0 is settled as Delivered after answer 503");
}

#[test]
fn what_nobody_published_is_not_sent() {
    let mut tale = one_event();
    tale.deliver("b", 2, D);
    tale.passes();
    tale.send("b", (2, "free"), 200);
    tale.breaks("nothing is made up: evt-2 for free was not published");
}

#[test]
fn a_crash_of_the_server_may_undo_claims_and_nothing_else() {
    let mut tale = one_event();
    tale.claim("a", 2, &[D]);
    tale.send("a", D, 200);
    let claiming = tale.claims("b");
    tale.crash();
    // Either worker may have the delivery now: both answers may have come before the crash.
    tale.claimed("b", claiming, 3, &[D]);
    tale.send("b", D, 200);
    tale.settle("b", 3, D, Outcome::Delivered);
    tale.passes();
    tale.claim("b", 4, &[D]);
    tale.breaks("settled for good: event 1 for e0 is handed out again");
}

#[test]
fn a_retry_waits_unless_a_crash_made_two_of_it() {
    for is_crashed in [false, true] {
        let mut tale = one_event();
        if is_crashed {
            tale.claim("a", 2, &[D]);
            tale.crash();
        }
        tale.claim("b", 3, &[D]);
        tale.send("b", D, 503);
        let due_at = tale.at + LEASE / 2;
        tale.settle("b", 3, D, Outcome::Retrying { due_at });
        if is_crashed {
            tale.send("a", D, 200);
            tale.pass(LEASE / 2, &["a", "b"]);
        }
        tale.deliver("b", 4, D);
        if is_crashed {
            tale.passes();
        } else {
            tale.breaks("retries wait: event 1 for e0 is sent before it is due");
        }
    }
}

#[test]
fn a_claim_that_was_heard_of_late_is_good_for_nothing_unless_it_is_extended() {
    for is_extended in [false, true] {
        let mut tale = one_event();
        let claiming = tale.claims("a");
        tale.pass(LEASE + LAG, &["b"]);
        tale.claimed("a", claiming, 2, &[D]);
        if is_extended {
            tale.extend("a", &[claim(D, 2)]);
        }
        tale.send("a", D, 200);
        tale.settle("a", 2, D, Outcome::Delivered);
        if is_extended {
            tale.passes();
        } else {
            tale.breaks("leases fence: event 1 for e0 is sent after its lease ended");
        }
    }
}

#[test]
fn a_claim_that_was_heard_of_late_may_be_anothers_already() {
    let mut tale = one_event();
    let claiming = tale.claims("a");
    tale.pass(LEASE, &["b"]);
    tale.deliver("b", 3, D);
    tale.claimed("a", claiming, 2, &[D]);
    tale.passes();
}
