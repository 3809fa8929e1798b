//! The last requests, in bounded memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use webhooks_core::EventId;

use super::entry::Entry;
use super::hidden::Hidden;
use crate::commands::listen::seen::Seen;

/// The most requests.
const MAX_REQUESTS: usize = 200;

/// The most bytes of all requests together, except of one that alone has more.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// The size of an answer, about: the page asks again for the rest.
const MAX_ANSWER: usize = 1024 * 1024;

/// The last requests.
#[derive(Debug)]
pub(super) struct Shelf {
    /// Tells this run from others, whose numbers begin at 1, too.
    run: String,
    target: String,
    hidden: Hidden,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// The number of the last one.
    last: u64,
}

impl Shelf {
    pub(super) fn new(target: String, hidden: Hidden) -> Self {
        Self { run: EventId::random().to_string(), target, hidden, kept: Mutex::default() }
    }

    pub(super) fn hidden(&self) -> &Hidden {
        &self.hidden
    }

    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// Adds a request, in place of the oldest ones.
    pub(super) fn add(&self, seen: Arc<Seen>) {
        let mut kept = self.kept();
        kept.last += 1;
        let entry = Entry { number: kept.last, seen };
        kept.bytes += entry.size();
        kept.entries.push_back(Arc::new(entry));
        while kept.entries.len() > 1
            && (kept.entries.len() > MAX_REQUESTS || kept.bytes > MAX_BYTES)
        {
            let oldest = kept.entries.pop_front();
            kept.bytes -= oldest.map_or(0, |oldest| oldest.size());
        }
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<Entry>> {
        self.kept().entries.iter().find(|entry| entry.number == number).cloned()
    }

    /// Returns the requests behind a number as JSON, as many as an answer holds.
    pub(super) fn json_after(&self, after: u64) -> String {
        let (new, first, last): (Vec<_>, u64, u64) = {
            let kept = self.kept();
            let new = kept.entries.iter().filter(|entry| entry.number > after).cloned();
            (new.collect(), kept.entries.front().map_or(1, |first| first.number), kept.last)
        };
        let (mut shown, mut bytes, mut next) = (Vec::new(), 0, after.min(last));
        for entry in new {
            if bytes > MAX_ANSWER {
                break;
            }
            let text = entry.json(&self.target, &self.hidden);
            bytes += text.to_string().len();
            next = entry.number;
            shown.push(text);
        }
        let answer = json!({
            "run": self.run,
            "first": first,
            "next": next,
            "isDone": next >= last,
            "requests": shown,
        });
        // The characters of markup are all inside of texts: an escape there is the same text.
        let markup = [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026")];
        markup
            .iter()
            .fold(answer.to_string(), |text, (letter, escape)| text.replace(*letter, escape))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;
    use serde_json::Value;
    use webhooks_core::Timestamp;

    use super::*;
    use crate::commands::listen::seen::Names;

    fn seen(body: Vec<u8>) -> Arc<Seen> {
        Arc::new(Seen {
            at: Timestamp::from_unix_seconds(1),
            head: Request::builder().uri("/in").body(()).unwrap().into_parts().0,
            body: Bytes::from(body),
            names: Names::default(),
            verified: None,
            answer: "200".to_owned(),
            status: Some(200),
            forwarded: Vec::new(),
        })
    }

    fn shelf() -> Shelf {
        Shelf::new("http://localhost".to_owned(), Hidden::default())
    }

    fn after(shelf: &Shelf, number: u64) -> Value {
        serde_json::from_str(&shelf.json_after(number)).unwrap()
    }

    #[test]
    fn the_last_requests_are_kept_up_to_a_number_and_a_size() {
        let shelf = shelf();
        for _ in 0..MAX_REQUESTS + 5 {
            shelf.add(seen(Vec::new()));
        }
        assert_eq!(after(&shelf, 0)["first"], 6);
        assert!(shelf.get(5).is_none());
        shelf.add(seen(vec![b'a'; MAX_BYTES]));
        let found = after(&shelf, 0);
        assert_eq!(
            (&found["first"], &found["requests"].as_array().unwrap().len()),
            (&206.into(), &1)
        );
        shelf.add(seen(vec![b'a'; 10]));
        assert_eq!(after(&shelf, 0)["first"], 207);
    }

    #[test]
    fn an_answer_is_a_part_and_leads_to_the_next() {
        let shelf = shelf();
        for _ in 0..20 {
            shelf.add(seen(vec![b'a'; 100 * 1024]));
        }
        let (mut number, mut found) = (0, 0);
        loop {
            let page = after(&shelf, number);
            found += page["requests"].as_array().unwrap().len();
            number = page["next"].as_u64().unwrap();
            if page["isDone"] == true {
                break;
            }
        }
        assert_eq!((found, number), (20, 20));
        // Of another run: the page begins anew.
        assert_eq!(after(&shelf, 1_000)["next"], 20);
    }
}
